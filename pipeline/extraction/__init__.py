"""Networks that find joints and parsing in images."""
