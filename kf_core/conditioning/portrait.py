"""The user's image cut and sized for a model, with advice where it will not animate well.

Whether there is a face in it is never claimed: nothing here looks for one. Knows nothing of latents; `anchor.py` takes what this makes.
Source of `livetalk_portrait`: LiveTalk, `resize_pad` (scale to cover, cut to whole pixels, antialiased, centre crop by negative padding).
"""

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import KnotForcingError

LONGEST_ASPECT = 4.0  # beyond it, most of the image would be cut away
SMALLEST_SIDE = 16  # pixels
TOP_SHARE = 0.25  # of what is cut from a tall image, this much goes at the top: heads stand above the middle
LARGE_BLOW_UP = 1.5
HEAD_AND_SHOULDERS = 2.2  # times as high as the face
SMALL_FACE = 1 / (HEAD_AND_SHOULDERS * LARGE_BLOW_UP)  # of the model's height: smaller, and head and shoulders are enlarged so much
FLAT = 0.02  # standard deviation of RGB 0..1
BLURRED = 0.03  # share of the contrast in the finest octave: a photograph in focus has 0.11 and more, blurred by 2 pixels 0.02


def prepare_portrait(image: Tensor, width: int, height: int) -> Tensor:
    """An image [h, w, 3] RGB 0..1, cut to the model's shape and resized: [1, 3, 1, height, width] RGB 0..1.

    Covers the whole frame; what is cut goes evenly left and right, and rather below than above. Raises KnotForcingError when the image
    cannot serve at all."""
    validate_portrait(image)
    source_height, source_width = image.shape[:2]
    scale = max(width / source_width, height / source_height)
    cut_width, cut_height = min(source_width, round(width / scale)), min(source_height, round(height / scale))
    top, left = int((source_height - cut_height) * TOP_SHARE), (source_width - cut_width) // 2
    return _resized(image[top : top + cut_height, left : left + cut_width], width, height)


def livetalk_portrait(image: Tensor, width: int, height: int) -> Tensor:
    """The same for LiveTalk, to the pixel as it was trained: [1, 3, 1, height, width] RGB 0..1."""
    validate_portrait(image)
    source_height, source_width = image.shape[:2]
    scale = max(width / source_width, height / source_height)
    whole = _resized(image, max(width, int(source_width * scale)), max(height, int(source_height * scale)), "bilinear")
    top, left = (whole.shape[-2] - height + 1) // 2, (whole.shape[-1] - width + 1) // 2  # an odd pixel goes above and on the left
    return whole[..., top : top + height, left : left + width]


def validate_portrait(image: Tensor) -> None:
    """Raises KnotForcingError where nothing good can come of the image."""
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"an image [h, w, 3] was expected, got {list(image.shape)}")
    height, width = image.shape[:2]
    aspect = max(height, width) / min(height, width)
    if aspect > LONGEST_ASPECT:
        raise KnotForcingError(  # without the size: a huge image was shrunk when it was read
            f"The portrait is {aspect:.0f} times as {'wide as high' if width > height else 'high as wide'}; "
            f"at most {LONGEST_ASPECT:.0f} times can be used. Crop it to the head and shoulders."
        )
    if min(height, width) < SMALLEST_SIDE:
        raise KnotForcingError(f"The portrait is only {width}x{height} pixels. Give one of at least 128x128, better 512x512.")
    if not torch.isfinite(image).all():
        raise KnotForcingError("The portrait holds values that are no numbers. Load or make the image again.")


def advice_on_face(face: int, height: int) -> list[str]:
    """What the user may want to know about a face so many pixels high, in the image as it was given, for a model of this height."""
    if face >= SMALL_FACE * height:
        return []
    least = math.ceil(SMALL_FACE * height)
    return [f"The face is small: {face} pixels high, so it will look soft however it is cut. Take an image with one of {least} or more."]


def advice_on(image: Tensor, width: int, height: int, name: str = "portrait") -> list[str]:
    """What the user may want to know about an image that will be used all the same; empty where nothing is to be said.

    `name`: what it is called where it is not the user's own image."""
    source_height, source_width = image.shape[:2]
    prepared = prepare_portrait(image, width, height)
    said = []
    scale = max(width / source_width, height / source_height)
    if scale > LARGE_BLOW_UP:
        said.append(f"The {name} is small ({source_width}x{source_height}) and is enlarged {scale:.1f} times; a larger one looks sharper.")
    lost = 1 - (width / scale) * (height / scale) / (source_width * source_height)
    if lost > 0.4:
        said.append(f"{lost:.0%} of the {name} is cut away to fit {width}x{height}; crop it to that shape yourself to choose what stays.")
    if prepared.std() < FLAT:
        said.append(f"The {name} is nearly one even colour, so there is little to animate. Is it the right image?")
    elif scale <= 1 and sharpness(prepared) < BLURRED:
        said.append(f"The {name} looks blurred; the video cannot be sharper than it is.")
    return said


def sharpness(prepared: Tensor) -> float:
    """How much of the contrast is in the finest detail: 0 (none) to about 1 (noise). Of images [1, 3, 1, h, w]."""
    grey = prepared[:, :, 0].mean(1, keepdim=True)
    smooth = interpolate(interpolate(grey, scale_factor=0.5, mode="area"), size=grey.shape[-2:], mode="bilinear")
    return ((grey - smooth).std() / grey.std().clamp_min(1e-6)).item()


def _resized(image: Tensor, width: int, height: int, kind: str = "bicubic") -> Tensor:
    image = rearrange(image.float(), "h w c -> 1 c h w")
    if image.shape[-2:] != (height, width):
        image = interpolate(image, size=(height, width), mode=kind, antialias=True, align_corners=False)
    return rearrange(image.clamp(0, 1), "b c h w -> b c 1 h w")
