"""A video file read back: what it is, and its pictures.

Knows nothing of how it was made; any file that PyAV opens will do.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import KnotForcingError
from .opening import opened


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a video file holds, counted from its packets."""

    pictures: int
    seconds: float  # of the pictures
    fps: float
    width: int
    height: int
    sound_seconds: float  # 0: no sound
    sample_rate: int | None
    channels: int | None
    metadata: dict[str, str]

    @property
    def has_sound(self) -> bool:
        return self.sound_seconds > 0


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """How a video file stores pictures and sound."""

    rate: Fraction  # pictures a second
    width: int
    height: int
    sample_rate: int | None  # None: no sound
    channels: int | None


def probe(path: Path | str) -> VideoFacts:
    """Count what is in a video file, without decoding it."""
    with _open(path) as container:
        pictures = container.streams.video[0]
        sound = container.streams.audio[0] if container.streams.audio else None
        count, sound_end = 0, 0.0
        for packet in container.demux():
            if packet.pts is None or not packet.size:
                continue
            if packet.stream is pictures:
                count += 1
            elif packet.stream is sound:
                sound_end = max(sound_end, float((packet.pts + packet.duration) * packet.time_base))
        format = _format(container)
        return VideoFacts(
            pictures=count,
            seconds=float(count / format.rate),
            fps=float(format.rate),
            width=format.width,
            height=format.height,
            sound_seconds=sound_end,
            sample_rate=format.sample_rate,
            channels=format.channels,
            metadata=dict(container.metadata),
        )


def format_of(path: Path | str) -> VideoFormat:
    """How a video file stores pictures and sound, from its beginning alone: hours are opened in a moment."""
    with _open(path) as container:
        return _format(container)


def metadata(path: Path | str) -> dict[str, str]:
    """What a video file says of itself, without counting what is in it."""
    with _open(path) as container:
        return dict(container.metadata)


def pictures(path: Path | str, start: int = 0) -> Iterator[Tensor]:
    """The pictures of a video file from number `start` on, one after the other: [h, w, 3] RGB 0..1. Those before are only decoded."""
    with _open(path) as container:
        for frame in islice(container.decode(video=0), start, None):
            rgb = frame.reformat(format="rgb24").to_ndarray()
            yield torch.from_numpy(np.ascontiguousarray(rgb)).float() / 255


def _format(container) -> VideoFormat:
    pictures = container.streams.video[0]
    sound = container.streams.audio[0] if container.streams.audio else None
    return VideoFormat(
        rate=pictures.average_rate or pictures.guessed_rate,
        width=pictures.codec_context.width,
        height=pictures.codec_context.height,
        sample_rate=sound.codec_context.sample_rate if sound else None,
        channels=sound.codec_context.layout.nb_channels if sound else None,
    )


@contextmanager
def _open(path: Path | str):
    import av  # only here: who opens no video, as training does, needs no video library

    with ExitStack() as stack:
        try:
            container = stack.enter_context(opened(path, "video"))
        except (av.FFmpegError, OSError) as problem:
            raise KnotForcingError(f"{path} cannot be read as a video. It may be empty, cut off or of another kind.") from problem
        if not container.streams.video:
            raise KnotForcingError(f"{path} holds no pictures. Give a video file.")
        yield container
