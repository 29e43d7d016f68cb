"""What LiveTalk hears: all layers of a wav2vec 2.0 encoder, stretched to one step per frame before the encoder's attention.

The published path takes a clip whole: statistics of the wave, stretching, attention in both directions. So it is done, exactly,
up to `EXACT_SECONDS`. Longer and live sound is heard in windows of `WINDOW_SECONDS` that overlap by `OVERLAP_SECONDS` or more and fade
into each other: stretched as the whole would be, normalised by the statistics of everything heard up to the window's end. Windows of sound
whose length is known are spread evenly, so that the last one ends with it: a window that is half silence would be heard differently.
A live source is heard a window late. After the end of the sound come windows of silence. Memory holds three windows, whatever the length.

What windows cost, through random encoders, on 45 to 150 s of speech: 7 to 11 % from the whole on average (cosine .99). A yardstick: the
whole changes by 1 to 3 % when the clip becomes a second longer, by 100 % when it is heard 12 ms amiss. The table is in docs/checkpoints.md.

Silence gives a still mouth, by three rules. Where there is no sound (no voice given, or the voice is over) the model hears silence, as
in the pauses of its training; it is not left without, and so the encoder is needed all the same. Silence is heard as a constant: nothing
in it moves. And a stretch in which nobody speaks, a clip or a window quieter than `QUIETEST` on average (-60 dB of full scale), is heard
as silence: the encoder's first normalisation is over time, so that the hiss of an empty room would move it as much as a voice. Speech is
20 to 40 dB above that and heard exactly as published. Through a small random encoder, what is heard changes from frame to frame by
1.2 of its size in speech, by 1.1 in hiss at -80 dB as the published path hears it, and by 0 in silence and in that hiss as it is heard
here (`test_wav2vec2.py`).

Source: LiveTalk (arXiv 2512.23576), after OmniAvatar; the network is transformers' Wav2Vec2Model, handed in.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import timeline
from ..errors import KnotForcingError
from ..timeline import PixelSpan
from ..types import SAMPLE_RATE, AudioSource

if TYPE_CHECKING:
    from transformers import Wav2Vec2Model

EXACT_SECONDS = 30.0
WINDOW_SECONDS = 20.0
OVERLAP_SECONDS = 2.0
REMEMBERED = 3  # windows; one of the base model's is 14 MB
VARIANCE_FLOOR = 1e-7
QUIETEST = 1e-3  # standard deviation of a wave, -1..1, in which somebody speaks
STRIDE, FIELD = 320, 400  # samples between the encoder's own steps, and that one of them hears


def read_encoder(folder: Path) -> Wav2Vec2Model:
    """The encoder in a folder as Hugging Face lays it out (config.json and weights). Never downloads."""
    try:
        from transformers import Wav2Vec2Model
    except ImportError as problem:
        raise KnotForcingError(
            "This model hears through wav2vec 2.0, which needs the package `transformers`, and it is not installed. "
            "Run `pip install transformers` in ComfyUI's Python and start again."
        ) from problem
    if not (Path(folder) / "config.json").is_file():
        raise KnotForcingError(
            f"There is no wav2vec 2.0 encoder in {folder}: no config.json was found. "
            f"Download facebook/wav2vec2-base-960h (config.json and model.safetensors) into that folder."
        )
    try:
        return Wav2Vec2Model.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError) as problem:
        raise KnotForcingError(
            f"The wav2vec 2.0 encoder in {folder} cannot be read ({str(problem).splitlines()[0]}). "
            f"Download facebook/wav2vec2-base-960h again."
        ) from problem


@dataclass(frozen=True)
class _Window:
    """A stretch of frames that is encoded at once. Its first `fade` frames are shared with the window before."""

    start: int
    stop: int
    fade: int


@dataclass(frozen=True)
class _Layout:
    """Where windows lie. Lengths in frames."""

    length: int  # of a window with sound
    hop: int  # from window to window at most, and between silent ones
    overlap: int  # of two windows at least
    frames: float  # of the sound; infinite where nobody knows

    @property
    def spoken(self) -> float:
        """Windows up to the end of the sound."""
        return math.inf if self.frames == math.inf else 1 + max(0, math.ceil((self.frames - self.length) / self.hop))

    def window(self, index: int) -> _Window:
        if index >= self.spoken:  # the sound is over; nothing of it fades into silence
            start = int(self.frames) + (index - int(self.spoken)) * self.hop
            return _Window(start, start + self.hop + self.overlap, 0 if index == self.spoken else self.overlap)
        start = self._start(index)
        return _Window(start, start + self.length, self.overlap if index else 0)

    def last_with(self, frame: int) -> int:
        """The last window that holds this frame."""
        if frame >= self.frames:
            return int(self.spoken) + (frame - int(self.frames)) // self.hop
        index = min(math.floor(frame / (self._step or self.length)) + 1, self.spoken - 1)  # a start is rounded
        return int(index if self._start(int(index)) <= frame else index - 1)

    @property
    def _step(self) -> float:
        if self.frames == math.inf:
            return self.hop
        return (self.frames - self.length) / max(1, self.spoken - 1)

    def _start(self, index: int) -> int:
        return math.floor(index * self._step)


@dataclass(frozen=True)
class _Stretching:
    """Which of the encoder's own steps, 50 a second, a frame hears: frame * ratio + offset."""

    ratio: float
    offset: float

    def place(self, frame: int) -> float:
        return max(0.0, round(frame * self.ratio + self.offset, 9))


class Wav2Vec2:
    """Steps of one audio source at `fps` frames a second: the last hidden state and all of them, [s, width]."""

    def __init__(self, source: AudioSource, fps: float, encoder: Wav2Vec2Model) -> None:
        self._source = source
        self._listener = source.open()
        self._fps = fps
        self._encoder = encoder.eval()
        self._layout = self._laid_out()
        self._stretching = self._like_the_whole() if source.seconds is not None else self._centred()
        self._remembered: OrderedDict[int, Tensor] = OrderedDict()
        self._statistics: list[_Sums] = []  # up to the end of each window; a few numbers every 18 s

    @property
    def width(self) -> int:
        return self._encoder.config.hidden_size * (self._encoder.config.num_hidden_layers + 2)

    def steps(self, span: PixelSpan) -> Tensor:
        """The steps of `span`, [s, width] float32."""
        rows = [self._step(frame) for frame in span]
        return torch.stack(rows) if rows else torch.zeros(0, self.width)

    def _step(self, frame: int) -> Tensor:
        index = self._layout.last_with(frame)
        window = self._layout.window(index)
        share = (frame - window.start + 1) / (window.fade + 1)
        if share >= 1:
            return self._encoded(index)[frame - window.start]
        earlier = self._layout.window(index - 1)
        before = self._encoded(index - 1)[frame - earlier.start]  # first: a file is read forwards
        return torch.lerp(before, self._encoded(index)[frame - window.start], share)

    def _laid_out(self) -> _Layout:
        length, overlap = round(WINDOW_SECONDS * self._fps), round(OVERLAP_SECONDS * self._fps)
        if self._source.seconds is None:
            return _Layout(length, length - overlap, overlap, math.inf)
        frames = self._frames_of_the_clip()
        return _Layout(frames if self._source.seconds <= EXACT_SECONDS else length, length - overlap, overlap, frames)

    def _frames_of_the_clip(self) -> int:
        """The published length, whole latent frames: 4F - 3 frames whose distances, 4F - 4, cover the sound."""
        shown = timeline.pixel_frames_in(self._source.seconds, self._fps)
        return timeline.pixel_frames(timeline.latent_frames(shown + 1))

    def _like_the_whole(self) -> _Stretching:
        """The published stretching: the clip's first and last frame hear the encoder's first and last step."""
        frames = self._frames_of_the_clip()
        own_steps = (self._sample(frames - 1) - FIELD) // STRIDE + 1
        return _Stretching((own_steps - 1) / (frames - 1), 0.0)

    def _centred(self) -> _Stretching:
        """Where the length is not known: a frame hears the step whose field is centred on it."""
        return _Stretching(SAMPLE_RATE / STRIDE / self._fps, -FIELD / 2 / STRIDE)

    def _samples(self, window: _Window) -> tuple[int, int]:
        """The samples that window hears."""
        first, last = self._stretching.place(window.start), self._stretching.place(window.stop - 1)
        stop = math.ceil(last) * STRIDE + FIELD
        return math.floor(first) * STRIDE, max(stop, self._sample(window.stop - 1)) if window.stop == self._layout.frames else stop

    def _encoded(self, index: int) -> Tensor:
        """Window `index`, [frames, width]."""
        if index not in self._remembered:
            window = self._layout.window(index)
            start, stop = self._samples(window)
            if index:
                self._sums(index - 1)  # what lies before is heard before
            heard = self._listener.samples(start, stop)
            mean, deviation = self._sums(index).normal()
            heard = heard if heard.std() >= QUIETEST else np.zeros_like(heard)
            wave = torch.from_numpy(((heard - mean) / deviation).astype(np.float32))
            places = [self._stretching.place(frame) - start // STRIDE for frame in range(window.start, window.stop)]
            self._remembered[index] = encode(self._encoder, wave, torch.tensor(places))
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(index)
        return self._remembered[index]

    def _sums(self, index: int) -> _Sums:
        """The statistics of the sound up to the end of window `index`, the silence after it not counted."""
        while len(self._statistics) <= index:
            sums = self._statistics[-1] if self._statistics else _Sums(0, 0.0, 0.0)
            _, stop = self._samples(self._layout.window(len(self._statistics)))
            start = sums.count
            while start < stop:
                heard = self._listener.samples(start, min(start + SAMPLE_RATE, stop)).astype(np.float64)
                if self._source.seconds is not None:  # known now, if the source was live and has been closed
                    heard = heard[: max(0, round(self._source.seconds * SAMPLE_RATE) - start)]
                if not len(heard):
                    break
                sums = _Sums(sums.count + len(heard), sums.total + heard.sum(), sums.squares + np.square(heard).sum())
                start += len(heard)
            self._statistics.append(sums)
        return self._statistics[index]

    def _sample(self, frame: int) -> int:
        return round(frame / self._fps * SAMPLE_RATE)


@dataclass(frozen=True)
class _Sums:
    count: int
    total: float
    squares: float

    def normal(self) -> tuple[float, float]:
        """What to subtract and what to divide by."""
        mean = self.total / max(1, self.count)
        variance = max(0.0, self.squares / max(1, self.count) - mean**2)
        return mean, math.sqrt(variance + VARIANCE_FLOOR)


@torch.no_grad()
def encode(encoder: Wav2Vec2Model, wave: Tensor, places: Tensor) -> Tensor:
    """A normalised wave [n] at 16 kHz, heard at `places` [p] in the encoder's own steps -> [p, width].

    The last hidden state, then hidden states 0 .. layers. Places between two steps are interpolated before the attention."""
    heard = encoder.feature_extractor(wave[None].to(encoder.device, encoder.dtype))[0].T  # [steps, c]
    before = places.floor().long().clamp(max=len(heard) - 1)
    after, share = (before + 1).clamp(max=len(heard) - 1), (places - before)[:, None].to(heard)
    heard = torch.lerp(heard[before], heard[after], share)[None]
    hidden, _ = encoder.feature_projection(heard)
    is_stable = encoder.config.do_stable_layer_norm  # where the norm comes last (large models) and not first (base)
    hidden = hidden + encoder.encoder.pos_conv_embed(hidden)
    hidden = hidden if is_stable else encoder.encoder.layer_norm(hidden)
    states: list[Tensor] = []
    # Layer by layer, because transformers 4 and 5 hand out hidden states in different ways, and hooks would see other streams' too.
    for layer in encoder.encoder.layers:
        states.append(hidden)
        answer = layer(hidden)
        hidden = answer[0] if isinstance(answer, tuple) else answer
    last = encoder.encoder.layer_norm(hidden) if is_stable else hidden
    return torch.cat((last, *states, last), dim=-1)[0].float().cpu()
