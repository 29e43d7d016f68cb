"""Control frames (DWPose or OpenPose drawings, depth, edges, any video) as latents for a VACE module, encoded while the stream goes.

    source --the frame on show at each of our moments, cut to the frame--> Wan VAE, streamed --> 16 control latents
    grey   --the same encoder, until its answer repeats--------------------------------------> 16 grey latents beside them

When the control ends, grey follows: nothing is asked for, the model is free. Asked again for the same frames, the answer is the same;
memory holds a few latents and the encoder's state, whatever the length. A stream that is resumed encodes the last seven seconds before it
again, which is all that the encoder remembers.
Source: ComfyUI, comfy_extras/nodes_wan.py, `WanVaceToVideo` (grey 0.5, a mask of ones, grey after the end).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ..content_id import frozen_names
from ..errors import KnotForcingError
from ..media.playback import VideoFacts, probe, shown
from ..timeline import LatentSpan, frame_shown, pixels
from ..vae.streaming import EncoderState, encode_frames
from ..vae.wan import ENCODER_REMEMBERS, SPATIAL_STRIDE, WanVAE

GREY = 0.5
KEPT = 2  # times as many frames are remembered as were asked for at once, because the next window begins within this one


class ControlSource(Protocol):
    @property
    def seconds(self) -> float: ...

    def shown(self, fps: float, start: int = 0) -> Iterator[Tensor]:
        """The frame on show at each of our moments from `start` on, `fps` a second, until the source ends: [h, w, 3] RGB 0..1."""
        ...


@frozen_names("control pictures", frames="frames", fps="fps")
@dataclass(frozen=True, eq=False)
class ControlFrames:
    """Control frames in memory: [f, h, w, 3] RGB 0..1 at their own rate."""

    frames: Tensor
    fps: float = 16.0

    def __post_init__(self) -> None:
        if self.frames.dim() != 4 or self.frames.shape[-1] != 3 or not len(self.frames):
            raise KnotForcingError(
                f"Control frames came as {list(self.frames.shape)}; at least one frame of [height, width, 3] is needed. "
                f"Connect the frames of a pose, depth or edge node."
            )
        if self.fps <= 0:
            raise KnotForcingError(f"The control frames play at {self.fps} frames a second; the rate must be above 0.")

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps

    def shown(self, fps: float, start: int = 0) -> Iterator[Tensor]:
        first = frame_shown(start, fps, self.fps)
        return _at_rate(iter(self.frames[first:]), first, self.fps, fps, start)


@frozen_names("control video", path="content")
@dataclass(frozen=True)
class ControlVideo:
    """Control frames in a video file, read as they are needed."""

    path: Path

    def __post_init__(self) -> None:
        _ = self.facts  # a file that cannot be read is refused here, not in the middle of a stream

    @cached_property
    def facts(self) -> VideoFacts:
        return probe(self.path)

    @property
    def seconds(self) -> float:
        return self.facts.seconds

    def shown(self, fps: float, start: int = 0) -> Iterator[Tensor]:
        return shown(self.path, fps, start)


class ControlLatents:
    """One source as a VACE module wants it, window by window.

    Invariants
    - Windows of any cut equal the whole, wherever the first begins.
    - Neither memory nor what a late first window costs grows with the length.
    """

    def __init__(self, source: ControlSource, vae: WanVAE, fps: float, latent_height: int, latent_width: int) -> None:
        self._source, self._vae, self._fps = source, vae, fps
        self._size = (SPATIAL_STRIDE * latent_height, SPATIAL_STRIDE * latent_width)
        self._begin(0)

    @torch.no_grad()
    def frames(self, span: LatentSpan) -> Tensor:
        """Grey latents and the control's for the frames of `span`: [1, f, 32, h, w] in model space."""
        is_behind = span.start < self._next and span.start not in self._kept
        if is_behind or span.start > self._next + ENCODER_REMEMBERS:
            self._begin(max(0, span.start - ENCODER_REMEMBERS))
        oldest = span.stop - KEPT * span.length
        while self._next < span.stop:
            latents = torch.cat((self._grey.next(), self._encoded()), dim=1)
            if self._next >= oldest:
                self._kept[self._next] = latents
            self._next += 1
        self._kept = {frame: latents for frame, latents in self._kept.items() if frame >= oldest}
        answer = torch.cat([self._kept[frame] for frame in span], dim=2)
        return rearrange(answer, "b c f h w -> b f c h w")

    def _begin(self, frame: int) -> None:
        """The encoder is to go on from latent frame `frame`, of which it sees the last frame only, as it sees frame 0 of a stream."""
        self._shown = self._source.shown(self._fps, pixels(LatentSpan(frame, frame + 1)).stop - 1)
        self._state, self._next = EncoderState(), frame
        self._kept: dict[int, Tensor] = {}  # latent frame -> [1, 32, 1, h, w]
        self._grey = _GreyLatents(self._vae, self._size)
        self._grey.skip(frame)

    def _encoded(self) -> Tensor:
        count = pixels(LatentSpan(self._state.next_frame, self._state.next_frame + 1)).length
        grey = torch.full((*self._size, 3), GREY)
        seen = torch.stack([_cut(next(self._shown, grey), *self._size) for _ in range(count)], dim=1)
        return encode_frames(self._vae, seen[None].to(self._vae.conv1.weight.device), self._state)


class _GreyLatents:
    """The latents of endless grey, frame by frame: encoded until encoder and answer repeat themselves, then told by heart."""

    def __init__(self, vae: WanVAE, size: tuple[int, int]) -> None:
        self._vae, self._size, self._state = vae, size, EncoderState()
        self._last: Tensor | None = None
        self._repeats = False

    def skip(self, frames: int) -> None:
        while not self._repeats and self._state.next_frame < frames:
            self.next()

    def next(self) -> Tensor:
        if self._repeats:
            return self._last
        count = pixels(LatentSpan(self._state.next_frame, self._state.next_frame + 1)).length
        grey = torch.full((1, 3, count, *self._size), GREY, device=self._vae.conv1.weight.device)
        before, last = self._state.past, self._last
        self._last = encode_frames(self._vae, grey, self._state)

        def same(a, b):
            return a.shape == b.shape and torch.equal(a, b)

        self._repeats = last is not None and same(last, self._last) and all(same(before[n], t) for n, t in self._state.past.items())
        if self._repeats:
            self._state = EncoderState()  # its memory is not needed any more
        return self._last


def _at_rate(frames: Iterator[Tensor], first: int, own_fps: float, fps: float, start: int) -> Iterator[Tensor]:
    """Of frames at `own_fps`, the first of which is number `first`, the one on show at each of our moments from `start` on."""
    showing, shown, moment = None, first - 1, start
    while True:
        wanted = frame_shown(moment, fps, own_fps)
        while shown < wanted:
            showing, shown = next(frames, None), shown + 1
            if showing is None:
                return
        yield showing
        moment += 1


def _cut(frame: Tensor, height: int, width: int) -> Tensor:
    """A frame [h, w, 3] scaled to cover the frame, its middle cut out: [3, height, width]."""
    image = rearrange(frame.float().cpu(), "h w c -> 1 c h w")
    scale = max(height / image.shape[2], width / image.shape[3])
    size = (max(height, round(image.shape[2] * scale)), max(width, round(image.shape[3] * scale)))
    if size != tuple(image.shape[2:]):
        image = interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[0, :, top : top + height, left : left + width].clamp(0, 1)
