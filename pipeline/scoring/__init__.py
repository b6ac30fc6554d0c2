"""How a generator's images are judged."""
