"""Parsing label sets, their colours and flips. Stored maps use LIP-20; other sets are lookup tables from it."""

import numpy as np

LIP20 = (
    "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants",
    "jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
)  # fmt: skip

# Label of the mirrored image: arms, legs and shoes swap sides.
LIP20_FLIP = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 14, 17, 16, 19, 18], dtype=np.uint8)
