"""How a portrait lies in its square: eyes level, at a height, so far apart. Stated as numbers in the model's card.

The tightest framing that keeps chin, brows and hair line. Measured in distances between the eyes' middles (the astronaut, dlib's points):
brows end .36 above the eye line, hair begins about 1.2 above, the chin lies 1.7 below, an open mouth takes it down to 2.0.
"""

from dataclasses import dataclass
from math import atan2, cos, hypot, sin

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Framing:
    """Of the square's side: how far apart the eyes are, and how far from the top their line is."""

    eye_distance: float
    eye_line: float


TIGHT = Framing(eye_distance=1 / 3.3, eye_line=0.40)
WIDE = Framing(eye_distance=1 / 4.4, eye_line=0.40)


def cut_to(image: np.ndarray, left_eye, right_eye, framing: Framing = TIGHT, size: int = 128) -> np.ndarray:
    """The square of `image` [h, w, 3] uint8 in which the person's eyes (x y in pixels) lie as the framing says: [size, size, 3].

    What lies outside the image is black. Downsampling averages, upsampling is bicubic."""
    (lx, ly), (rx, ry) = left_eye, right_eye
    angle = atan2(ly - ry, lx - rx)  # the person's left eye is to the right in the image
    scale = hypot(lx - rx, ly - ry) / (framing.eye_distance * size)  # pixels of the image to one of the cut
    over = max(1, min(8, round(2 * scale)))
    step = scale / over
    right, down = np.array([cos(angle), sin(angle)]) * step, np.array([-sin(angle), cos(angle)]) * step
    side = size * over
    corner = np.array([(lx + rx) / 2, (ly + ry) / 2]) - right * side / 2 - down * side * framing.eye_line
    matrix = (right[0], down[0], corner[0], right[1], down[1], corner[1])
    large = Image.fromarray(image).transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(large.resize((size, size), Image.Resampling.BOX) if over > 1 else large)
