"""Randomises the image, not what it shows: colours, exposure, sharpness, noise, JPEG blocks. The same for all frames of a clip.

Frames are RGB 0..1 [c, f, h, w]. What differs between cameras must not matter to an autoencoder or a student.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def randomise(frames: Tensor, rng: np.random.Generator, strength: float = 1.0) -> Tensor:
    """One draw of camera, light and compression over a clip [3, f, h, w]; `strength` 0 changes nothing."""
    frames = _colours(frames, rng, strength)
    if rng.random() < 0.2 * strength:
        frames = _blur(frames, rng.uniform(0.3, 1.1))
    elif rng.random() < 0.2 * strength:
        frames = _sharpen(frames, rng.uniform(0.2, 0.8))
    if rng.random() < 0.25 * strength:
        noise = torch.from_numpy(rng.standard_normal(frames.shape).astype(np.float32))
        frames = frames + noise * rng.uniform(0.004, 0.02)
    frames = frames.clamp(0, 1)
    if rng.random() < 0.15 * strength:
        frames = _jpeg(frames, int(rng.integers(50, 95)))
    return frames


def occlude(frame: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Something in front of a face, one or two soft-cornered patches of another image: [h, w, 3] uint8 like `frame`. For a finder."""
    side = frame.shape[0]
    down, across = np.mgrid[0:side, 0:side] / side - 0.5
    made = frame.astype(np.float32)
    for _ in range(int(rng.integers(1, 3))):
        x, y, angle = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.5), rng.uniform(0, np.pi)
        along = (across - x) * np.cos(angle) + (down - y) * np.sin(angle)
        beside = (down - y) * np.cos(angle) - (across - x) * np.sin(angle)
        long, wide = rng.uniform(0.08, 0.5), rng.uniform(0.03, 0.16)
        cover = np.clip((1 - (along / long) ** 4 - (beside / wide) ** 4) * side * wide / 2, 0, 1)[..., None]
        made += cover * (np.roll(other, int(rng.integers(side)), 1) - made)
    return made.round().clip(0, 255).astype(np.uint8)


def _colours(frames: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Exposure, white balance, saturation, contrast about a grey, gamma; sometimes no colour at all."""

    def draw(scale):
        return float(np.exp(rng.normal(0, scale * strength)))

    gains = torch.tensor([draw(0.08) * (exposure := draw(0.15)), draw(0.04) * exposure, draw(0.08) * exposure]).view(3, 1, 1, 1)
    frames = (frames * gains).clamp_min(0) ** draw(0.15)
    grey = frames.mean(0, keepdim=True)
    saturation = 0.0 if rng.random() < 0.04 * strength else draw(0.25)
    frames = grey + (frames - grey) * saturation
    return 0.45 + (frames - 0.45) * draw(0.12) + rng.normal(0, 0.03 * strength)


def _blur(frames: Tensor, sigma: float) -> Tensor:
    radius = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).float()
    planes = frames.flatten(0, 1)[:, None]
    planes = F.pad(planes, (radius, radius, radius, radius), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return planes[:, 0].view_as(frames)


def _sharpen(frames: Tensor, amount: float) -> Tensor:
    return frames + amount * (frames - _blur(frames, 1.0))


def _jpeg(frames: Tensor, quality: int) -> Tensor:
    made = []
    for frame in (frames * 255).round().byte().permute(1, 2, 3, 0).numpy():
        Image.fromarray(frame).save(file := io.BytesIO(), "JPEG", quality=quality)
        made.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(made)).permute(3, 0, 1, 2).float() / 255


def cut_photograph(photograph: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph [h, w, 3] at a random scale and turn, as [side, side, 3]."""
    height, width = photograph.shape[:2]
    largest = min(height, width)
    size = int(np.clip(side * np.exp(rng.uniform(np.log(0.6), np.log(3.5))), min(48, largest), largest))
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    square = Image.fromarray(photograph[top : top + size, left : left + size])
    square = np.asarray(square.resize((side, side), Image.Resampling.LANCZOS if size > side else Image.Resampling.BICUBIC))
    if rng.random() < 0.5:
        square = square[:, ::-1]
    return np.rot90(square, int(rng.choice([0, 0, 0, 1, 2, 3]))).copy()
