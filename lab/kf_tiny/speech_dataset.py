"""A library of speech with its mouth tracks, and takes cut from it: the sound and the mouth of one training clip.

Takes are spliced, fall silent and start anywhere, and their mouth is always that of the sound. Knows nothing of portraits.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .speech import HELD_OUT_VOICES, SAMPLE_RATE_HZ, TRAINING_VOICES, Speech, monologue
from .visemes import mouth_track
from .voice_augment import disturb

FPS = 16
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS


@dataclass(frozen=True, eq=False)
class Take:
    """What is heard and what the mouth does."""

    samples: np.ndarray  # [1000 * (frames + 1)] float32, 16 kHz: one frame of sound beyond the end
    mouth: np.ndarray  # [3, frames] float32: open 0..1, wide -1..1, bite 0..1


@dataclass(frozen=True, eq=False)
class Library:
    """Monologues one after another, cut to whole frames."""

    samples: np.ndarray  # [1000 * frames] float16
    mouth: np.ndarray  # [3, frames] float32
    lengths: np.ndarray  # [monologues] frames

    @classmethod
    def of(cls, monologues: Iterable[Speech]) -> "Library":
        samples, mouths = [], []
        for speech in monologues:
            frames = len(speech.samples) // SAMPLES_PER_FRAME
            samples.append(speech.samples[: frames * SAMPLES_PER_FRAME].astype(np.float16))
            mouths.append(np.stack(mouth_track(speech, frames, FPS)))
        return cls(np.concatenate(samples), np.concatenate(mouths, 1), np.array([mouth.shape[1] for mouth in mouths]))

    def cut(self, frames: int, generator: np.random.Generator) -> Take:
        """A stretch of one monologue, as it was spoken."""
        long_enough = np.flatnonzero(self.lengths > frames)
        if not len(long_enough):
            raise ValueError(f"no monologue is longer than {frames} frames; the longest has {self.lengths.max()}")
        which = generator.choice(long_enough)
        first = int(self.lengths[:which].sum() + generator.integers(self.lengths[which] - frames))
        sound = self.samples[first * SAMPLES_PER_FRAME : (first + frames + 1) * SAMPLES_PER_FRAME]
        return Take(sound.astype(np.float32), self.mouth[:, first : first + frames].copy())

    def monologues(self) -> Iterator[Take]:
        """Each as a whole, without the frame of sound beyond its end."""
        first = 0
        for length in self.lengths:
            span, first = slice(first, first + length), first + length
            sound = self.samples[span.start * SAMPLES_PER_FRAME : span.stop * SAMPLES_PER_FRAME]
            yield Take(sound.astype(np.float32), self.mouth[:, span])

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        tensors = {name: torch.from_numpy(getattr(self, name)) for name in ("samples", "mouth", "lengths")}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path.with_suffix(".unfinished"))
        os.replace(path.with_suffix(".unfinished"), path)

    @classmethod
    def load(cls, path: Path) -> "Library":
        return cls(**{name: tensor.numpy() for name, tensor in load_file(path).items()})


def speech_library(minutes: float, *, held_out: bool = False, seed: int = 0) -> Library:
    """About `minutes` of speech, shared evenly by the voices."""
    voices = HELD_OUT_VOICES if held_out else TRAINING_VOICES
    rounds = max(1, round(minutes * 60 / len(voices) / 45))
    seconds = minutes * 60 / len(voices) / rounds
    return Library.of(monologue(voice, seconds, seed + turn, held_out=held_out) for turn in range(rounds) for voice in voices)


def training_take(library: Library, frames: int, generator: np.random.Generator) -> Take:
    """A take as training needs it: spliced at times, silent for a while at times, as some microphone heard it."""
    take = library.cut(frames, generator)
    if generator.random() < 0.2:
        take = _splice(take, library.cut(frames, generator), int(generator.integers(1, frames)))
    chance = generator.random()
    if chance < 0.04:
        take = _silence(take, 0, frames)
    elif chance < 0.29:
        start = int(generator.integers(frames))
        take = _silence(take, start, min(frames, start + int(generator.integers(6, 40))))
    return Take(disturb(take.samples, generator), take.mouth)


def _splice(first: Take, second: Take, at: int) -> Take:
    """One voice until frame `at`, another from there on."""

    def join(a, b, place):
        return np.concatenate([a[..., :place], b[..., place:]], -1)

    return Take(join(first.samples, second.samples, at * SAMPLES_PER_FRAME), join(first.mouth, second.mouth, at))


def _silence(take: Take, start: int, stop: int) -> Take:
    """Nothing is said from frame `start` to `stop`: no sound, a closed mouth."""
    samples, mouth = take.samples.copy(), take.mouth.copy()
    samples[start * SAMPLES_PER_FRAME : (stop + (stop == mouth.shape[1])) * SAMPLES_PER_FRAME] = 0
    mouth[:, start:stop] = 0
    return Take(samples, mouth)
