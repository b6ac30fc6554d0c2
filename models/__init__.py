"""Networks and losses. Nothing here reads a file or knows where data lives: tensors in, tensors out."""
