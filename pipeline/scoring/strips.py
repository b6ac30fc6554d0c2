"""Strips: pictures that show a pair's source and target beside what was generated, as several code bases save them."""

import numpy as np

# Panels -> which of them are source, target, generated. 10 and 11 are rows as PIDM and PCDMs publish them: pose,
# source, target, six earlier methods (ADGAN to NTED), PIDM, and PCDMs at the end of its own.
PANELS = {3: (0, 1, 2), 5: (0, 2, 4), 10: (1, 2, 9), 11: (1, 2, 10)}


def cut(picture: np.ndarray, height: int, width: int) -> list[np.ndarray] | None:
    """A strip's source, target and generated panel, each (height, width, ...); None if its size is no strip's."""
    for panels, chosen in PANELS.items():
        if picture.shape[:2] == (height, panels * width):
            return [picture[:, place * width : (place + 1) * width] for place in chosen]
    return None
