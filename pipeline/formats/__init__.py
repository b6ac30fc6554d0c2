"""The field's own files, read and written."""
