"""An image file, of any kind that Pillow reads, as sRGB: upright, opaque, one frame, no larger than it is of use.

A huge photograph is shrunk while it is read, in bytes; only what is left becomes floating point. Colours are converted from the profile
that the file carries. Knows nothing of portraits; that is `conditioning/portrait.py`.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from ..errors import KnotForcingError
from ..writing import is_special

BACKDROP = (128, 128, 128)  # what shows through transparent parts: neutral, so that it tints neither skin nor hair
LONGEST = 4096  # pixels; a face in a corner of a photograph still has enough of them
MOST_JPEG = 512_000_000  # pixels of a JPEG, which is shrunk before it is unpacked (a 200 MP telephone); of others Pillow's limit holds
PROFILED = {"RGB", "CMYK", "L", "LAB"}  # modes that a colour profile may speak of


def read_image(path: Path | str, longest: int | None = LONGEST) -> Tensor:
    """The image in a file: [h, w, 3] sRGB 0..1, its longer side at most `longest` pixels (None: as it is). An animation gives its first
    frame."""
    path = Path(path)
    if os.path.isdir(path):
        raise KnotForcingError(f"{path} is a folder. Give an image file, such as a PNG or JPEG.")
    try:
        if is_special(path):
            raise KnotForcingError(f"{path} is a pipe or a device, and an image is a file. Save it as one first.")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is far beyond it is an error, and that is caught below
            return torch.from_numpy(_read(file, longest))
    except FileNotFoundError as problem:
        raise KnotForcingError(f"The image {path} does not exist. Check its name and folder.") from problem
    except UnidentifiedImageError as problem:
        raise KnotForcingError(f"{path} {_what_to_do_with(path)}") from problem
    except Image.DecompressionBombError as problem:
        raise KnotForcingError(
            f"{path} is too large to be opened safely ({problem}). Save it smaller; 2000 pixels are plenty."
        ) from problem
    except (OSError, ValueError, SyntaxError, EOFError) as problem:  # what Pillow's decoders raise on damaged files
        raise KnotForcingError(f"The image {path} is damaged or cut off ({problem}). Save or download it again.") from problem


def _read(file: io.BufferedReader, longest: int | None) -> np.ndarray:
    with _open(file) as image:
        if longest is not None and max(image.size) > longest:
            image.draft(None, tuple(max(1, side * longest // max(image.size)) for side in image.size))  # a JPEG is unpacked smaller
        image.load()
        profile = image.info.get("icc_profile")
        upright = _shrunk(image, longest)
        if upright is not image:
            image.close()  # gives its memory back
    ImageOps.exif_transpose(upright, in_place=True)
    return _rgb(upright, profile)


def _open(file: io.BufferedReader) -> Image.Image:
    """Pillow's own opening, but for JPEGs beyond its limit of pixels, and with what opens HEIC where that is installed."""
    start = file.read(16)
    file.seek(0)
    if _is_heif(start):
        _register_heif()
    if not start.startswith(b"\xff\xd8\xff"):
        return Image.open(file)
    image = JpegImagePlugin.JpegImageFile(file)
    # a progressive one is held whole while it is unpacked
    if image.width * image.height > (2 * Image.MAX_IMAGE_PIXELS if image.info.get("progressive") and Image.MAX_IMAGE_PIXELS else MOST_JPEG):
        raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
    return image


def _shrunk(image: Image.Image, longest: int | None) -> Image.Image:
    """No longer than `longest`, as Pillow shrinks: in the image's own bytes, transparent parts without weight."""
    if longest is None or max(image.size) <= longest:
        return image
    if image.mode.startswith("I;"):
        image = image.convert("I")
    if image.mode in ("I", "1"):
        image = image.convert("F" if image.mode == "I" else "L")
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    size = tuple(max(1, round(side * longest / max(image.size))) for side in image.size)
    info, exif = image.info, image.getexif()
    smaller = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    smaller.info = dict(info)
    if 0x0112 in exif:
        smaller.info["exif"] = _only_orientation(exif[0x0112])
    return smaller


def _only_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def _rgb(image: Image.Image, profile: bytes | None) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        grey = (values / _white(image.mode, float(values.max(initial=0)))).clip(0, 1)
        return np.repeat(grey[..., None], 3, axis=-1)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    alpha = image.getchannel("A") if "A" in image.getbands() and image.mode != "LAB" else None
    if alpha is not None:
        image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
    image = _in_srgb(image, profile)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, BACKDROP), alpha)
    rgb = np.array(image, dtype=np.float32)
    rgb /= 255  # in place: of a large image this is 150 MB
    return rgb


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB as a screen shows it. A profile that is broken, or that speaks of other channels than the image has, is left out."""
    if image.mode in ("YCbCr", "HSV", "RGBX", "1"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode == "LAB" or profile and image.mode in PROFILED:
        try:
            own = ImageCms.createProfile("LAB") if image.mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
            # perceptual: as the maker of the profile meant images to be shown; profiles of screens and cameras know one way only
            return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), ImageCms.Intent.PERCEPTUAL, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image.convert("RGB")


def _white(mode: str, top: float) -> float:
    """What counts as white where Pillow does not say: 16 bits for whole numbers; for fractions the smallest usual depth that holds them."""
    depths = (1, 255, 65535) if mode == "F" else (65535,)
    return next((float(depth) for depth in depths if top <= depth), top)


# ---- kinds that Pillow alone may not read ----

HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def _is_heif(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS


def _register_heif() -> None:
    """Pillow reads HEIC where pillow-heif is installed; it is asked only when such a file comes."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _what_to_do_with(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(16)
    if _is_heif(start):
        return (
            "is a HEIC image, as iPhones take them, and nothing here reads it. Install pillow-heif "
            "(`pip install pillow-heif`), or save the image as JPEG or PNG."
        )
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        return (
            "is an AVIF image, and the Pillow that is installed does not read it. "
            "Install a newer one (`pip install --upgrade pillow`, 11.3 or later), or save the image as JPEG or PNG."
        )
    if start.startswith((b"\xff\x0a", b"\x00\x00\x00\x0cJXL ")):
        return "is a JPEG XL image, and Pillow does not read it. Save it as JPEG or PNG."
    return "is not an image that can be read. Give a PNG, JPEG or WebP file."
