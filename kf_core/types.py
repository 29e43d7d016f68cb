"""What passes between the stages of a stream: driving for a chunk, a denoising step, latents, frames.

Values only; each says which space its tensor is in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from torch import Tensor

from .timeline import LatentSpan, PixelSpan

SAMPLE_RATE = 16_000  # of the sound that models hear


@dataclass(frozen=True, eq=False)
class Signal:
    """One driving signal over some latent frames. What it adds to the hidden states is scaled by `strength`.

    A signal that is absent is `None` where a Signal could stand, which equals strength 0."""

    features: Tensor  # [b, f, ...]  f = latent frames
    strength: float | Tensor = 1.0  # 0..2; or [b, f] where frames differ (training)


@dataclass(frozen=True, eq=False)
class Control(Signal):
    """Control frames for a VACE module: `features` are [b, f, 32, h, w], grey latents and the control's, in model space."""

    in_clean_pass: bool = False  # whether what is remembered of finished frames has heard the control, too


@dataclass(frozen=True, eq=False)
class TextContext:
    """An encoded prompt. Compared by identity: the same object means the same prompt, so its keys may be reused."""

    embedding: Tensor  # [b, l, text_dim]
    prompt: str = ""
    against: "TextContext | None" = None  # what guidance leads away from; None: the null context


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkConditioning:
    """Everything that drives the frames of `span`. Four driving steps to a latent frame, time-major (`timeline.groups`)."""

    span: LatentSpan
    text: TextContext | None = None  # None: the model's null context
    audio: Signal | None = None  # [b, f, 4 * width]
    pose: Signal | None = None  # [b, f, 12, h, w] RGB 0..1 on the latent grid, black: no pose seen
    expression: Signal | None = None  # [b, f, 4 * values]
    motion: Signal | None = None  # [b, f, 1] motion strength, 0..2
    control: Control | None = None

    def of_clean_pass(self) -> "ChunkConditioning":
        """What drives the pass that commits finished frames."""
        return self if self.control is None or self.control.in_clean_pass else replace(self, control=None)


@dataclass(frozen=True)
class Step:
    """One denoising step is done. Nothing is committed: a caller may stop here."""

    span: LatentSpan  # the frames being denoised
    index: int  # 0 .. total - 1
    total: int
    clean: Tensor  # [b, c, f, h, w] the current estimate, model space


@dataclass(frozen=True)
class LatentChunk:
    """Frames that are done, in model space (zero mean, unit variance)."""

    index: int  # which chunk of the stream
    span: LatentSpan
    latents: Tensor  # [b, c, f, h, w]
    knot: Tensor | None = None  # [b, c, k, h, w] denoised beyond `span`, handed to the next chunk; None: there is none, or it was not kept


@dataclass(frozen=True)
class Replayed:
    """A chunk that was denoised before is remembered again, from its latents: one pass instead of a pass for each step."""

    index: int  # 0 .. total - 1
    total: int


@dataclass(frozen=True)
class FrameChunk:
    """Frames that are done."""

    index: int
    span: PixelSpan
    frames: Tensor  # [f, h, w, 3] RGB 0..1


def gather(whole: Tensor | None, chunk: FrameChunk, span: PixelSpan) -> Tensor:
    """Put a chunk's frames in their place among all of `span`, on the CPU: [f, h, w, 3]. The first time, None, makes room for them.

    Joining chunks at the end would hold every frame twice."""
    if whole is None:
        whole = chunk.frames.new_empty((span.length, *chunk.frames.shape[1:]), device="cpu")
    whole[chunk.span.start - span.start : chunk.span.stop - span.start] = chunk.frames
    return whole


class Listener(Protocol):
    """Hears one source at 16 kHz mono."""

    def samples(self, start: int, stop: int) -> np.ndarray:
        """float32 [stop - start], -1..1; zeros before 0 and beyond the end. A live source blocks until it has them."""
        ...


class AudioSource(Protocol):
    @property
    def seconds(self) -> float | None:
        """How long it plays; None: nobody knows yet, or for ever."""
        ...

    def open(self) -> Listener: ...

    def blocks(self, sample_rate: int, channels: int = 1, *, start: int = 0) -> Iterator[np.ndarray]:
        """The sound itself for the finished video: float32 [n, channels], in blocks from sample `start` until it ends.

        A late start gives the same samples, to 1e-6, and does not read all that comes before."""
        ...
