"""Portraits drawn by others, as judges: DiceBear's, made by draw.mjs, with points that were set by hand.

python -m lab.avatars --svg avatars --out avatars          SVG to PNG, by resvg (pip install resvg-py)
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..framing import TIGHT, Framing, cut_to

POINTS_SIDE = 256  # pixels, on which the points were set


@cache
def hand_points() -> dict[str, dict[str, tuple[float, float] | None]]:
    """Of every avatar, by the name of its file."""
    stored = json.loads((Path(__file__).parent / "points.json").read_text())
    return {name: points for name, points in stored.items() if name != "about"}


def avatars(folder: Path, framing: Framing = TIGHT, size: int = 128) -> dict[str, np.ndarray]:
    """Those that lie in a folder as PNG, cut to a framing by their points: name -> [size, size, 3] uint8."""
    cut = {}
    for name, points in hand_points().items():
        if (file := folder / f"{name}.png").exists():
            image = Image.open(file).convert("RGB")
            scaled = [tuple(np.array(points[eye]) * image.width / POINTS_SIDE) for eye in ("left_eye", "right_eye")]
            cut[name] = cut_to(np.asarray(image), *scaled, framing, size)
    return cut
