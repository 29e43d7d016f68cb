"""Reads a cartoon portrait: how the mouth, eyes and head are held, and whose face it is.

A small convolutional net, trained on the procedural portraits only (`training/reader.py`), so that generated video can be measured
without the numbers it was drawn from. Not meant for photographs. Knows nothing of time: every frame is read on its own.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditioning.head import Tensors
from ..errors import KnotForcingError

READER_FILE = Path(__file__).parent.parent / "assets" / "portrait-reader.safetensors"
SIZE = 96  # frames are brought to this size before they are read
VALUES = ("mouth_open", "mouth_wide", "blink", "yaw", "pitch", "roll", "smile", "brows", "gaze_x", "gaze_y")
# one unit of what the net answers, in the value's own unit: a training clip's typical deviation
SCALES = (0.35, 0.6, 0.4, 0.18, 0.10, 0.08, 0.5, 0.5, 0.5, 0.35)
EMBEDDING = 64
_BLOCK = 32  # frames read at once


@dataclass(frozen=True, kw_only=True)
class Reading(Tensors):
    """What was read, every field [f] in the units of `training.portraits.Motion`, but the embedding [f, 64], of length 1."""

    mouth_open: Tensor
    mouth_wide: Tensor
    blink: Tensor
    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    smile: Tensor
    brows: Tensor
    gaze_x: Tensor
    gaze_y: Tensor
    embedding: Tensor


class PortraitReader(nn.Module):
    """Frames [n, 3, 96, 96] RGB 0..1 -> values [n, 10] in units of SCALES, embedding [n, 64]. About 0.7 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.GroupNorm(4, 16), nn.SiLU(),
            _down(16, 32), _Residual(32), _down(32, 64), _Residual(64), _down(64, 128), _Residual(128),
        )  # fmt: skip
        self.values = nn.Sequential(
            nn.Conv2d(128, 32, 1), nn.SiLU(), nn.Flatten(), nn.Linear(32 * 36, 128), nn.SiLU(), nn.Linear(128, len(VALUES))
        )
        self.identity = nn.Sequential(
            nn.Conv2d(128, 48, 1), nn.SiLU(), nn.Flatten(), nn.Linear(48 * 36, 128), nn.SiLU(), nn.Linear(128, EMBEDDING)
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(2 * frames - 1)
        return self.values(features), F.normalize(self.identity(features), dim=-1)

    @torch.no_grad()
    def read(self, frames: Tensor) -> Reading:
        """Read frames of any size, [f, h, w, 3] RGB 0..1."""
        weight = self.trunk[0].weight
        answers, embeddings = [], []
        for block in frames.split(_BLOCK):
            values, embedding = self(at_reading_size(block.movedim(-1, 1).to(weight)))
            answers.append(values * values.new_tensor(SCALES))
            embeddings.append(embedding)
        if not answers:
            raise ValueError("there is no frame to read")
        columns = torch.cat(answers).float().cpu().unbind(1)
        return Reading(**dict(zip(VALUES, columns, strict=True)), embedding=torch.cat(embeddings).float().cpu())


class OneReading:
    """A reader for several measures that are shown the same frames one after the other: they are read once."""

    def __init__(self, reader: PortraitReader) -> None:
        self._reader = reader
        self._frames: Tensor | None = None
        self._reading: Reading | None = None

    def read(self, frames: Tensor) -> Reading:
        if frames is not self._frames:
            self._frames, self._reading = frames, self._reader.read(frames)
        return self._reading


def load_reader(path: Path = READER_FILE) -> PortraitReader:
    """The bundled reader, ready to read."""
    if not path.is_file():
        raise KnotForcingError(
            f"{path} is missing, and without it faces cannot be measured. Install Knot Forcing again, or train the reader."
        )
    reader = PortraitReader()
    reader.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return reader.eval().requires_grad_(False)


def at_reading_size(frames: Tensor) -> Tensor:
    """[n, 3, h, w] -> [n, 3, 96, 96]."""
    if frames.shape[-2:] == (SIZE, SIZE):
        return frames
    return F.interpolate(frames, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)


def _down(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GroupNorm(out // 4, out), nn.SiLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.norm(self.conv(x)))
