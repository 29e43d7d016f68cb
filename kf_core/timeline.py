"""Three clocks and the only conversions between them: seconds, pixel frames, latent frames.

Wan's VAE is causal in time: latent frame 0 holds one frame, every later one holds four.

    latent [0 |    1    |    2    | ...
    pixel  [0 | 1 2 3 4 | 5 6 7 8 | ...

All spans are half-open and meet without gap. Source: Wan 2.1, temporal stride 4.
"""

import math
from dataclasses import dataclass

PIXELS_PER_LATENT = 4


@dataclass(frozen=True)
class _Span:
    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise ValueError(f"a span cannot end before it starts: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        return self.stop - self.start

    def __iter__(self):
        return iter(range(self.start, self.stop))


class LatentSpan(_Span):
    """Latent frames start .. stop-1."""


class PixelSpan(_Span):
    """Frames start .. stop-1. A span made by `groups` may start below 0."""


def pixel_frames(latent_frames: int) -> int:
    """How many frames the first `latent_frames` latent frames hold."""
    return max(0, 1 + PIXELS_PER_LATENT * (latent_frames - 1)) if latent_frames > 0 else 0


def latent_frames(pixel_frames: int) -> int:
    """How many latent frames are needed for at least `pixel_frames` frames."""
    return 0 if pixel_frames <= 0 else 1 + math.ceil((pixel_frames - 1) / PIXELS_PER_LATENT)


def pixels(span: LatentSpan) -> PixelSpan:
    """The frames that `span` holds: LatentSpan(3, 6) -> PixelSpan(9, 21)."""
    return PixelSpan(pixel_frames(span.start), pixel_frames(span.stop))


def groups(span: LatentSpan) -> PixelSpan:
    """The driving steps that belong to `span`, four to each latent frame: frame f hears steps 4f-3 .. 4f.

    Frame 0 hears steps -3 .. 0; sources answer for a negative step with step 0 (LiveTalk prepends three copies)."""
    first = PIXELS_PER_LATENT * span.start - PIXELS_PER_LATENT + 1
    return PixelSpan(first, first + PIXELS_PER_LATENT * span.length)


def seconds(span: PixelSpan, fps: float) -> tuple[float, float]:
    """When the frames of `span` are shown, in seconds from the start of the stream."""
    return span.start / fps, span.stop / fps


def pixel_frames_in(seconds: float, fps: float) -> int:
    """The number of frames that covers `seconds` to the frame: at least one, rounded up (past float noise)."""
    return max(1, math.ceil(seconds * fps - 1e-6))


def frame_shown(frame: int, fps: float, own_fps: float) -> int:
    """Which frame of a source at `own_fps` is on show when ours, at `fps`, is: 0 for what lies before the start."""
    return math.floor(max(0, frame) / fps * own_fps + 1e-6)
