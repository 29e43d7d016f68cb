"""A stream: the recipe of a video without end, and what must be kept to continue it bit for bit.

    portrait, driving, model --rollout--> latents (--> spool) --decoder--> frames

Iterating a stream starts afresh and gives the same frames each time; iterating with a `StreamState` goes on where it was saved.
Knows no files but its own, and no host: it yields, the caller decides about progress, preview, interruption and saving.
"""

import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import __version__
from ..conditioning.anchor import Anchor
from ..conditioning.driving import Driving
from ..content_id import Unrepeatable, fingerprint
from ..encoders.text import TextEncoder
from ..errors import KnotForcingError
from ..models.causal import Generator
from ..sampling.guidance import negative_prompt, remark_on_guidance
from ..sampling.noise import SeededNoise
from ..sampling.rollout import replay, rollout
from ..sampling.state import RolloutState
from ..settings import RolloutSettings
from ..timeline import LatentSpan, PixelSpan, pixel_frames, pixel_frames_in, pixels
from ..types import FrameChunk, LatentChunk, Replayed, Step
from ..vae.streaming import DecoderState, VideoDecoder
from ..vae.wan import WanVAE
from ..writing import sync, why
from .executor import Executor, InlineExecutor
from .latent_log import LatentLog

STATE_KEY = "knot_forcing_stream"  # the entry of a state file's header that says whose state it is
LONGEST_HEADER = 100_000_000  # bytes, safetensors' own limit


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """The recipe. Holds nothing that changes; two streams may share a model and a decoder."""

    model: Generator
    decoder: VideoDecoder
    anchor: Anchor
    driving: Driving
    settings: RolloutSettings
    seed: int = 0
    seconds: float | None = None  # None: as long as the driving; for ever where nobody knows
    audio_encoder: nn.Module | None = None  # for models that hear through wav2vec 2.0
    text_encoder: TextEncoder | None = None  # for models that read
    control_encoder: WanVAE | None = None  # for control frames, where the model has a VACE module

    @property
    def fps(self) -> float:
        return self.model.card.fps

    @property
    def num_frames(self) -> int | None:
        """How many frames the stream has; None: no end is known, or not yet (a live source)."""
        seconds = self.driving.seconds if self.seconds is None else self.seconds
        return None if seconds is None else pixel_frames_in(seconds, self.fps)

    def __iter__(self) -> Iterator[FrameChunk]:
        return self.frames()

    def frames(self, state: "StreamState | None" = None, spool: LatentLog | None = None) -> Iterator[FrameChunk]:
        """The frames, chunk by chunk; the last chunk is cut so that the length is exact."""
        for item in self.steps(state, spool):
            if isinstance(item, FrameChunk):
                yield item

    def steps(
        self,
        state: "StreamState | None" = None,
        spool: LatentLog | None = None,
        *,
        worker: Executor | None = None,
        then: Callable[[FrameChunk], object] | None = None,
        until: int | None = None,
    ) -> Iterator[Step | Replayed | LatentChunk | FrameChunk]:
        """All that happens: denoising steps, finished latents, frames. A `state` is continued, and changed in place.

        A `worker` that is a `BackgroundExecutor` makes the frames of a chunk, and does what comes `then`, while the next is denoised;
        they are handed out before that one is committed. So the state is whole and may be saved after each FrameChunk, and after a Step
        if it says so (`is_whole`). What the spool holds is read, what it lacks is added to it. `until`: denoise no chunk that only has
        frames beyond this one. Closing waits for the frames that are being made; if there is a `then`, they count as handed out."""
        state, worker = state or StreamState.start(self), worker or InlineExecutor()
        if self._is_over(state):
            return
        try:
            for item in self._latents(state, spool):
                if isinstance(item, Step):
                    if worker.is_done or item.index + 1 == item.total:  # what follows the last step is the commit
                        yield from self._taken(worker, state)
                    yield item
                elif isinstance(item, Replayed):
                    yield item
                else:
                    yield from self._taken(worker, state)
                    yield item
                    for part in _parts(item, state.decoder.next_frame):
                        yield from self._taken(worker, state)
                        worker.start(partial(self._make, part, state.decoder, then))
                    is_last = self._is_beyond(pixels(item.span).stop, until)
                    if worker.is_done or is_last:
                        yield from self._taken(worker, state)
                    if is_last:
                        return
        finally:
            if worker.is_busy:
                _, decoder = worker.take()
                state.decoder = state.decoder if then is None else decoder

    def latents(self, spool: LatentLog | None = None) -> Iterator[Step | Replayed | LatentChunk]:
        """The latents from the beginning to the end, whole chunks, without making frames of them; for ever where there is no end."""
        for item in self._latents(StreamState.start(self), spool):
            yield item
            if isinstance(item, LatentChunk) and self._is_beyond(pixels(item.span).stop):
                return

    def remarks(self) -> tuple[str, ...]:
        """What was given and is not used, or costs more than is usual, in sentences."""
        return (*self._bound().unused, *remark_on_guidance(self.model.card, self.settings))

    def recipe(self) -> str:
        """A name for all that decides the latents: equal recipes give equal latents. What nobody could repeat has a name of its own.

        Length is no part of it: a longer stream begins like a shorter one."""
        return self._recipe

    @cached_property
    def _recipe(self) -> str:
        """Computed once, because it reads all that was given and is asked for with each state that is saved."""
        try:
            return fingerprint(
                __version__,
                self.model.card,
                self.model.modules,
                self.model.adapters,
                str(self.model.dtype),
                self.anchor,
                replace(self.driving, negative_prompt=self._against()),
                self.settings,
                self.seed,
                self.audio_encoder,
                *self._reader(),
                *self._control(),
            )
        except Unrepeatable:
            return uuid.uuid4().hex

    def _against(self) -> str | None:
        return negative_prompt(self.model.card, self.driving, self.settings)

    def _reader(self) -> tuple[TextEncoder, ...]:
        """What reads the prompts, where somebody does."""
        return () if self.text_encoder is None or self.model.card.text.kind == "none" else (self.text_encoder,)

    def _control(self) -> tuple[nn.Module, ...]:
        """What makes hints of control frames, where there are any."""
        is_used = self.driving.control is not None and self.model.vace is not None and self.control_encoder is not None
        return (self.model.vace, self.control_encoder) if is_used else ()

    def _latents(self, state: "StreamState", spool: LatentLog | None) -> Iterator[Step | Replayed | LatentChunk]:
        """Latents from the first chunk that is not decoded yet: from the spool as far as it goes, then denoised.

        Before anything is denoised, the rollout catches up with what was read: replayed where the spool has it, denoised if not."""
        wanted = self.settings.chunk_of(state.decoder.next_frame)
        while spool is not None and (found := spool.read(wanted)) is not None:
            yield found
            wanted += 1
        if state.rollout.chunk > wanted:
            raise ValueError(f"the state is past chunk {state.rollout.chunk - 1}, but the latents of chunk {wanted} are nowhere")
        begun, bound = state.rollout.chunk, self._bound()
        while True:
            is_catching_up = spool is not None and state.rollout.chunk < wanted
            if is_catching_up and (found := spool.read(state.rollout.chunk)) is not None:
                replay(self.model, self.anchor, bound, self.settings, state.rollout, found)
                yield Replayed(found.index - begun, wanted - begun)
                continue
            for item in rollout(self.model, self.anchor, bound, self.settings, self._noise(), state.rollout):
                if isinstance(item, LatentChunk) and item.index < wanted:
                    break  # its frames come from the spool, which may have the next one, too
                if isinstance(item, LatentChunk) and spool is not None and spool.reaches(item.index):  # it may have been removed
                    spool.append(item)
                yield item

    def _make(self, chunk: LatentChunk, past: DecoderState, then: Callable | None) -> tuple[FrameChunk, DecoderState]:
        """The frames of `chunk`, on the CPU, and what the decoder remembers after them; `past` stays as it is."""
        decoder = replace(past)
        latents = chunk.latents.to(dtype=self.anchor.latent.dtype, device=self.decoder.device)
        made = self._trimmed(self.decoder.decode(replace(chunk, latents=latents), decoder))
        if then is not None and made.span.length:
            then(made)
        return replace(made, frames=made.frames.cpu()), decoder

    def _taken(self, worker: Executor, state: "StreamState") -> Iterator[FrameChunk]:
        """The frames that were being made, if any: waits for them."""
        if worker.is_busy:
            made, state.decoder = worker.take()
            if made.span.length:
                yield made

    def _bound(self):
        _, _, _, height, width = self.anchor.latent.shape
        return self.driving.bind(
            self.model.card,
            latent_height=height,
            latent_width=width,
            device=self.model.device,
            dtype=self.anchor.latent.dtype,
            encoder=self.audio_encoder,
            text_encoder=self.text_encoder,
            control_encoder=self.control_encoder if self.model.vace is not None else None,
            against=self._against(),
            seed=self.seed,
        )

    def _noise(self) -> SeededNoise:
        b, c, _, h, w = self.anchor.latent.shape
        return SeededNoise(self.seed, (b, c, h, w))

    def _is_over(self, state: "StreamState") -> bool:
        return self._is_beyond(state.next_frame)

    def _is_beyond(self, frames: int, until: int | None = None) -> bool:
        """Whether so many frames are all that is wanted."""
        ends = [end for end in (self.num_frames, until) if end is not None]
        return bool(ends) and frames >= min(ends)

    def _trimmed(self, chunk: FrameChunk) -> FrameChunk:
        end = self.num_frames
        if end is None or chunk.span.stop <= end:
            return chunk
        span = PixelSpan(chunk.span.start, max(chunk.span.start, end))
        return FrameChunk(chunk.index, span, chunk.frames[: span.length])


@dataclass(eq=False)
class StreamState:
    """All that a running stream changes: what the generator remembers, and what the decoder does.

    Counts whole chunks, also where the stream's end cuts the last one: a longer stream of the same recipe can go on from it."""

    rollout: RolloutState
    decoder: DecoderState

    @property
    def next_frame(self) -> int:
        """The first frame that has not been made."""
        return pixel_frames(self.decoder.next_frame)

    @property
    def is_whole(self) -> bool:
        """Whether all that was denoised has become frames, so that this state alone is enough to go on."""
        return self.rollout.cache.settings.output_span(self.rollout.chunk).start <= self.decoder.next_frame

    @classmethod
    def start(cls, stream: Stream) -> "StreamState":
        return cls(RolloutState.start(stream.model, stream.anchor, stream.settings), DecoderState())

    def save(self, path: Path | str, stream: Stream) -> None:
        """Write the state to a file, which is replaced whole or not at all. Raises KnotForcingError when it cannot be written."""
        path = Path(path)
        tensors = {f"rollout.{name}": tensor for name, tensor in self.rollout.tensors().items()}
        for name, value in self.decoder.state_dict().items():
            tensors[f"decoder.{name}"] = torch.as_tensor(value)
        # A convolution may sum in another order when its input lies otherwise in memory, so the layout is part of the state.
        channels_last = [name for name, t in tensors.items() if t.ndim == 5 and _lies_channels_last(t)]
        header = {"recipe": stream.recipe(), "decoder": fingerprint(stream.decoder.vae), "channels_last": channels_last}
        header |= {"chunk": self.rollout.chunk, "next_frame": self.decoder.next_frame}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        fresh = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, fresh, metadata={STATE_KEY: json.dumps(header)})
            with fresh.open("r+b") as file:
                sync(file)  # or, after a power cut, the name could stand for an empty file
            os.replace(fresh, path)
        except (OSError, SafetensorError) as problem:
            found, remedy = why(problem, path) if isinstance(problem, OSError) else (str(problem), "Make room on that disk")
            raise KnotForcingError(
                f"What is needed to continue the stream cannot be saved: {path} cannot be written, because {found}. {remedy}. "
                f"What was made so far is kept."
            ) from problem
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    @classmethod
    def look_at(cls, path: Path | str) -> dict | None:
        """What a file says of its state (recipe, decoder, next chunk and frame) without reading it; None when it is none or broken."""
        try:
            with safe_open(path, framework="pt") as file:
                said = json.loads((file.metadata() or {})[STATE_KEY])
        except (OSError, SafetensorError, ValueError, KeyError):
            return None
        return said if isinstance(said, dict) and {"recipe", "chunk", "next_frame"} <= said.keys() else None

    @classmethod
    def load(cls, path: Path | str, stream: Stream) -> "StreamState | None":
        """The state in a file; None when there is none, when it is broken, when it belongs to another recipe, or when the stream has no
        room for all that it remembers (an unlimited window, and a shorter stream).

        Where only the decoder is another one, its part begins anew: the latents must then come from a spool."""
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get(STATE_KEY, "{}"))
                if header.get("recipe") != stream.recipe():
                    return None
                places = {"rollout": stream.anchor.latent.device, "decoder": stream.decoder.device}
                tensors = {name: file.get_tensor(name).to(places[name.partition(".")[0]]) for name in file.keys()}  # noqa: SIM118  no dict
        except (OSError, SafetensorError, ValueError):
            return None
        for name in header["channels_last"]:
            tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last_3d)

        def part(prefix):
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        try:
            denoised = RolloutState.restore(part("rollout."), stream.model, stream.anchor, stream.settings)
        except ValueError:
            return None
        if header["decoder"] != fingerprint(stream.decoder.vae):
            return cls(denoised, DecoderState())
        return cls(denoised, DecoderState.from_state_dict(part("decoder.")))


def is_state(path: Path) -> bool:
    """Whether a file may be replaced by a state: it is one, or it is empty or not there."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            return not head or STATE_KEY.encode() in file.read(min(int.from_bytes(head, "little"), LONGEST_HEADER))
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _parts(chunk: LatentChunk, first: int) -> Iterator[LatentChunk]:
    """The chunk from latent frame `first` on; frame 0 goes alone, because its one frame is what people wait for."""
    span = chunk.span
    start = max(first, span.start)
    cuts = [start, span.stop] if start > 0 or span.stop == 1 else [0, 1, span.stop]
    for start, stop in itertools.pairwise(cuts):
        yield LatentChunk(chunk.index, LatentSpan(start, stop), chunk.latents[:, :, start - span.start : stop - span.start])


def _lies_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last_3d) and not tensor.is_contiguous()
