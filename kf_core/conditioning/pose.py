"""Where the head's pose comes from: pose frames, a video of them, or angles over time.

A source is a recipe; `open` gives a reader of one's own. A reader answers with frames on the latent grid (`openpose.py`), the same ones
however often it is asked, black outside the source's length: no pose seen, the model is free. Knows nothing of models.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..content_id import frozen_names
from ..errors import KnotForcingError
from ..media.playback import VideoFacts, probe, shown
from ..timeline import PixelSpan, frame_shown
from .openpose import draw_pose, keypoints_from_angles, reduce_pose

_KEPT_SECONDS = 10.0  # what a reader of a video remembers; asked for something older, it begins again
BLINK_EVERY = 3.6  # seconds
BLINK_SECONDS = 0.11  # half the width of a blink


class PoseReader(Protocol):
    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        """What is shown at the frames of `span`: [f, 3, h, w] 0..1, black outside its length. A negative frame answers as frame 0."""
        ...


class PoseSource(Protocol):
    @property
    def seconds(self) -> float | None:
        """How long it lasts; None: for ever."""
        ...

    def open(self) -> PoseReader: ...


@frozen_names("head angles", keys="keys", start="start", stop="stop", blink_every="blink_every")
@dataclass(frozen=True, kw_only=True)
class HeadAngles:
    """The head's angles over time: (seconds, yaw, pitch, roll) in degrees, eased from one key to the next.

    Yaw > 0 turns to the viewer's right, pitch > 0 looks down, roll > 0 tips clockwise. The first key holds before its moment, the last one
    after it. Black before `start` and from `stop` on. The eyes blink by themselves, because a pose that shows open eyes keeps them open."""

    keys: tuple[tuple[float, float, float, float], ...]
    start: float = 0.0  # seconds
    stop: float | None = None  # None: for ever
    blink_every: float = BLINK_EVERY  # seconds, on average; 0: never

    def __post_init__(self) -> None:
        if not self.keys:
            raise KnotForcingError("The head's angles have no key. Give at least one: seconds, yaw, pitch, roll.")
        times = [key[0] for key in self.keys]
        if times != sorted(times) or len(set(times)) < len(times):
            raise KnotForcingError(f"The keys of the head's angles stand at {times} s; each must come later than the one before it.")
        if (largest := max(abs(angle) for key in self.keys for angle in key[1:])) > 60:
            raise KnotForcingError(f"A head angle of {largest:g} degrees turns the face out of sight. Keep angles within 60 degrees.")

    @property
    def seconds(self) -> float | None:
        return self.stop

    def open(self) -> "HeadAngles":
        return self

    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        times = torch.tensor([max(0, frame) / fps for frame in span], dtype=torch.float64)
        yaw, pitch, roll = self.angles(times).deg2rad().float().unbind(1)
        drawn = draw_pose(keypoints_from_angles(yaw, pitch, roll, blink=blinks(times, self.blink_every)), latent_h, latent_w)
        seen = times >= self.start if self.stop is None else (times >= self.start) & (times < self.stop)
        return drawn * seen[:, None, None, None]

    def angles(self, times: Tensor) -> Tensor:
        """Yaw, pitch and roll in degrees at these seconds: [n, 3]."""
        keys = torch.tensor(self.keys, dtype=torch.float64)
        after = torch.searchsorted(keys[:, 0].contiguous(), times, right=True).clamp(1, max(1, len(keys) - 1))
        before, after = keys[after - 1], keys[after.clamp(max=len(keys) - 1)]
        part = ((times - before[:, 0]) / (after[:, 0] - before[:, 0]).clamp(min=1e-9)).clamp(0, 1)[:, None]
        return torch.lerp(before[:, 1:], after[:, 1:], part.square() * (3 - 2 * part))


@frozen_names("pose pictures", frames="frames", fps="fps")
@dataclass(frozen=True, eq=False)
class PoseFrames:
    """Pose frames in memory: [f, h, w, 3] RGB 0..1 at their own rate."""

    frames: Tensor
    fps: float = 16.0

    def __post_init__(self) -> None:
        if self.frames.dim() != 4 or self.frames.shape[-1] != 3 or not len(self.frames):
            raise KnotForcingError(
                f"Pose frames came as {list(self.frames.shape)}; at least one frame of [height, width, 3] is needed. "
                f"Connect the frames of an OpenPose or DWPose node."
            )
        if self.fps <= 0:
            raise KnotForcingError(f"The pose frames play at {self.fps} frames a second; the rate must be above 0.")

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps

    def open(self) -> "PoseFrames":
        return self

    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        result = torch.zeros(span.length, 3, latent_h, latent_w)
        for index, frame in enumerate(span):
            own = frame_shown(frame, fps, self.fps)
            if own < len(self.frames):
                result[index] = reduce_pose(self.frames[own : own + 1].cpu(), latent_h, latent_w)[0]
        return result


@frozen_names("pose video", path="content")
@dataclass(frozen=True)
class PoseVideo:
    """Pose frames in a video file, read as they are needed."""

    path: Path

    def __post_init__(self) -> None:
        _ = self.facts  # a file that cannot be read is refused here, not in the middle of a stream

    @cached_property
    def facts(self) -> VideoFacts:
        return probe(self.path)

    @property
    def seconds(self) -> float:
        return self.facts.seconds

    def open(self) -> "PoseVideoReader":
        return PoseVideoReader(self)


class PoseVideoReader:
    """Reads one video forwards, keeping what it shows at our last moments as it stands on the latent grid.

    Invariant: the answer does not depend on what was asked before."""

    def __init__(self, video: PoseVideo) -> None:
        self._video = video
        self._asked: tuple[float, int, int] | None = None  # frames a second, and the grid
        self._source: Iterator[Tensor] = iter(())
        self._kept: dict[int, Tensor] = {}  # our moment -> [3, h, w]
        self._next = 0
        self._count: int | None = None  # known when the end has been read

    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        wanted = [max(0, moment) for moment in span]
        oldest = min(wanted[0], wanted[-1] - _KEPT_SECONDS * fps) if wanted else 0
        if self._asked != (fps, latent_h, latent_w) or any(
            moment < self._next and moment not in self._kept for moment in wanted if not self._past_end(moment)
        ):
            self._restart((fps, latent_h, latent_w), max(0, math.floor(oldest)))
        if wanted:
            self._read_to(wanted[-1], oldest)
        black = torch.zeros(3, latent_h, latent_w)
        answer = [self._kept.get(moment, black) for moment in wanted]
        return torch.stack(answer) if answer else torch.zeros(0, 3, latent_h, latent_w)

    def _past_end(self, moment: int) -> bool:
        return self._count is not None and moment >= self._count

    def _restart(self, asked: tuple[float, int, int], start: int) -> None:
        self._asked, self._kept, self._next, self._count = asked, {}, start, None
        self._source = shown(self._video.path, asked[0], start)

    def _read_to(self, last: int, oldest: float) -> None:
        before = None
        while self._next <= last and not self._past_end(self._next):
            frame = next(self._source, None)
            if frame is None:
                self._count = self._next
                break
            if self._next >= oldest:
                is_same = frame is before and self._next - 1 in self._kept
                self._kept[self._next] = self._kept[self._next - 1] if is_same else reduce_pose(frame[None], *self._asked[1:])[0]
            self._next, before = self._next + 1, frame
        for moment in list(itertools.takewhile(lambda moment: moment < oldest, self._kept)):
            del self._kept[moment]


def blinks(times: Tensor, every: float) -> Tensor:
    """Lids that shut about every so many seconds, unevenly, at the same moments every time: [n] 0..1. Never, if `every` is 0."""
    if not every:
        return torch.zeros(len(times))
    nearest = (times / every - 0.5).round() + torch.tensor([[-1.0], [0.0], [1.0]])
    moments = (nearest + 0.5 + 0.28 * (nearest * 2.4).sin()) * every
    return torch.exp(-(((times - moments) / BLINK_SECONDS) ** 4)).amax(0).float()
