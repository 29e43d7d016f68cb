"""Sitters for protocols: held-out faces that speak held-out sentences by held-out voices, of any length, drawn when they are asked for.

A sitter is its seed: the same face, motion and noise for ever. Its speech is kept in a file, because espeak-ng says a sentence a little
differently the second time. Source of all numbers: `portraits.py`, `speech.py`, `visemes.py`.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kf_core.conditioning.audio import AudioArray
from kf_core.conditioning.head import keypoints
from kf_core.conditioning.openpose import draw_pose
from kf_core.timeline import PixelSpan, latent_frames, pixel_frames
from kf_core.types import SAMPLE_RATE

from ..protocols.results import written_once
from .drawing import render
from .portraits import Identities, Motion, sample_identities, sample_motion, with_mouth
from .speech import HELD_OUT_VOICES, Speech, join, monologue, pause
from .speech_dataset import FPS
from .visemes import LIP_CLOSURES, mouth_track

KEPT_BYTES = 2**28  # a truth no larger than this is drawn once and kept, in bytes of 0..255
SECONDS_BEYOND = 1.0  # of speech after the last frame: the knot hears beyond it


@dataclass(frozen=True, eq=False)
class Voiced:
    """What a sitter says and what the mouth does."""

    samples: np.ndarray  # float32, 16 kHz
    mouth: np.ndarray  # [3, f] float32: open 0..1, wide -1..1, bite 0..1
    closures: tuple[int, ...]  # frames at whose time the middle of an m, b or p is
    voice: str

    @classmethod
    def of(cls, speech: Speech, frames: int, voice: str) -> "Voiced":
        ends = [start for start, _ in speech.phonemes[1:]] + [speech.seconds]
        middles = [round((start + end) / 2 * FPS) for (start, name), end in zip(speech.phonemes, ends, strict=True) if _is_closure(name)]
        closures = tuple(sorted({frame for frame in middles if frame < frames}))
        return cls(speech.samples, np.stack(mouth_track(speech, frames, FPS)), closures, voice)

    def save(self, path: Path) -> None:
        tensors = dict(samples=torch.from_numpy(self.samples).half(), mouth=torch.from_numpy(self.mouth))
        tensors["closures"] = torch.tensor(self.closures, dtype=torch.int64)
        tensors["voice"] = torch.tensor(list(self.voice.encode()), dtype=torch.uint8)
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> "Voiced":
        data = load_file(path)
        voice = bytes(data["voice"].tolist()).decode()
        return cls(data["samples"].float().numpy(), data["mouth"].numpy(), tuple(data["closures"].tolist()), voice)


@dataclass(frozen=True, eq=False)
class HeldOutSitter:
    """A sitter as `evaluation.sitting` wants it. Frames are drawn block by block; short clips are kept once drawn."""

    seed: int
    size: int
    face: Identities  # [1]
    motion: Motion  # [1, f]
    voiced: Voiced

    @property
    def num_frames(self) -> int:
        return self.motion.yaw.shape[1]

    @property
    def voice(self) -> str:
        return self.voiced.voice

    @property
    def opening(self) -> Tensor:
        return self.motion.mouth_open[0]

    @property
    def closures(self) -> tuple[int, ...]:
        return self.voiced.closures

    @cached_property
    def sound(self) -> AudioArray:
        return AudioArray(self.voiced.samples, SAMPLE_RATE)

    @property
    def pose(self) -> "DrawnAsNeeded":
        return DrawnAsNeeded(self.face, self.motion)

    def frames(self, span: PixelSpan) -> Tensor:
        """The truth: [f, h, w, 3] RGB 0..1, in steps of 1/255."""
        if self.num_frames * self.size**2 * 3 > KEPT_BYTES:
            return self._draw(span).float() / 255
        drawn = self._kept["drawn"]
        if span.stop > drawn:
            self._frames[drawn : span.stop] = self._draw(PixelSpan(drawn, span.stop))
            self._kept["drawn"] = span.stop
        return self._frames[span.start : span.stop].float() / 255

    @cached_property
    def _kept(self) -> dict[str, int]:
        return {"drawn": 0}

    @cached_property
    def _frames(self) -> Tensor:
        return torch.empty(self.num_frames, self.size, self.size, 3, dtype=torch.uint8)

    def _draw(self, span: PixelSpan) -> Tensor:
        drawn = render(self.face, self.motion[:, span.start : span.stop], self.size).frames[0]
        return (255 * drawn).round().byte().permute(0, 2, 3, 1)


@dataclass(frozen=True, eq=False)
class DrawnAsNeeded:
    """The pose of a motion, drawn on the latent grid when it is asked for."""

    face: Identities
    motion: Motion

    @property
    def seconds(self) -> float:
        return self.motion.yaw.shape[1] / FPS

    def open(self) -> "DrawnAsNeeded":
        return self

    def between(self, span: PixelSpan, fps: float, latent_h: int, latent_w: int) -> Tensor:
        last = self.motion.yaw.shape[1] - 1
        inside = torch.tensor([min(max(0, step), last) for step in span])
        head = self.motion[0][inside].head
        shape = self.face.shape.map(lambda value: value.expand(len(inside)))
        drawn = draw_pose(keypoints(shape, head), latent_h, latent_w)
        return drawn * torch.tensor([step <= last for step in span])[:, None, None, None]


def seat(seed: int, seconds: float, size: int, folder: Path) -> HeldOutSitter:
    """The held-out sitter of this seed, `seconds` long; what is said is kept in `folder`."""
    count = pixel_frames(latent_frames(round(seconds * FPS)))
    file = folder / f"speech-{seconds:g}s-{seed}.safetensors"
    voice = HELD_OUT_VOICES[seed % len(HELD_OUT_VOICES)]

    def speech():
        return monologue(voice, seconds + SECONDS_BEYOND, seed, held_out=True)

    written_once(file, lambda path: Voiced.of(speech(), count, voice.name).save(path))
    return _seated(seed, size, count, Voiced.load(file))


def seat_with_pause(seed: int, seconds: float, size: int, silent: tuple[float, float], folder: Path) -> HeldOutSitter:
    """A sitter who says nothing between two moments (seconds)."""
    count = pixel_frames(latent_frames(round(seconds * FPS)))
    file = folder / f"pause-{seconds:g}s-{seed}.safetensors"
    voice = HELD_OUT_VOICES[seed % len(HELD_OUT_VOICES)]

    def speech() -> Speech:
        before = _cut(monologue(voice, silent[0], seed, held_out=True), silent[0])
        after = monologue(voice, seconds + SECONDS_BEYOND - silent[1], seed + 1, held_out=True)
        return join([before, pause(silent[1] - before.seconds), after])

    written_once(file, lambda path: Voiced.of(speech(), count, voice.name).save(path))
    return _seated(seed, size, count, Voiced.load(file))


def seat_with_voice(seed: int, samples: np.ndarray, opening: Tensor, size: int, voice: str) -> HeldOutSitter:
    """A sitter who hears a recording (16 kHz). `opening` [f] is what is taken for its mouth: no phonemes are known."""
    mouth = torch.zeros(3, len(opening))
    mouth[0] = opening
    return _seated(seed, size, len(opening), Voiced(samples.astype(np.float32), mouth.numpy(), (), voice))


def _seated(seed: int, size: int, count: int, voiced: Voiced) -> HeldOutSitter:
    face = sample_identities(1, torch.Generator().manual_seed(seed), "held-out")  # by itself: the same at every length
    motion = sample_motion(1, count, torch.Generator().manual_seed(seed + 1_000_000), FPS, 1.0)
    return HeldOutSitter(seed, size, face, with_mouth(motion, *torch.from_numpy(voiced.mouth)[:, None]), voiced)


def _cut(speech: Speech, seconds: float) -> Speech:
    return replace(
        speech,
        samples=speech.samples[: round(seconds * SAMPLE_RATE)],
        phonemes=tuple((start, name) for start, name in speech.phonemes if start < seconds),
    )


def _is_closure(name: str) -> bool:
    return bool(name) and name[0] in LIP_CLOSURES
