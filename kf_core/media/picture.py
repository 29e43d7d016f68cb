"""A picture file, of any kind that Pillow reads, as RGB: upright, opaque, one frame.

Knows nothing of portraits; that is `conditioning/portrait.py`.
"""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import KnotForcingError

BACKDROP = (128, 128, 128)  # what shows through transparent parts: neutral, so that it tints neither skin nor hair


def read_picture(path: Path | str) -> Tensor:
    """The picture in a file: [h, w, 3] RGB 0..1. An animation gives its first frame."""
    path = Path(path)
    if os.path.isdir(path):
        raise KnotForcingError(f"{path} is a folder. Give a picture file, such as a PNG or JPEG.")
    try:
        with Image.open(path) as image:
            image.load()
            rgb = _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as problem:
        raise KnotForcingError(f"The picture {path} does not exist. Check its name and folder.") from problem
    except UnidentifiedImageError as problem:
        raise KnotForcingError(f"{path} is not a picture that can be read. Give a PNG, JPEG or WebP file.") from problem
    except Image.DecompressionBombError as problem:
        raise KnotForcingError(
            f"{path} is too large to be opened safely ({problem}). Save it smaller; 2000 pixels are plenty."
        ) from problem
    except (OSError, ValueError, SyntaxError, EOFError) as problem:  # what Pillow's decoders raise on damaged files
        raise KnotForcingError(f"The picture {path} is damaged or cut off ({problem}). Save or download it again.") from problem
    return torch.from_numpy(rgb)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        grey = (values / _white(image.mode, float(values.max(initial=0)))).clip(0, 1)
        return np.repeat(grey[..., None], 3, axis=-1)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*BACKDROP, 255)), image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _white(mode: str, top: float) -> float:
    """What counts as white where Pillow does not say: 16 bits for whole numbers; for fractions the smallest usual depth that holds them."""
    depths = (1, 255, 65535) if mode == "F" else (65535,)
    return next((float(depth) for depth in depths if top <= depth), top)
