"""What every room stands on: paths, settings, columns, files, messages."""
