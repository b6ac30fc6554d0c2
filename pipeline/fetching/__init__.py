"""Downloads and their digests."""
