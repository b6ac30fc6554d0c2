"""Published numbers and ours, cell by cell."""
