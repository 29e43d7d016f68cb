"""Classifier-free guidance: the flow sets out from what a negative prompt would give, and goes past what the prompt would.

    flow = against + scale * (toward - against)

Both flows are the same network's, over the same latents, times and signals; each reads its own words. And each remembers a past of its
own: the keys of the portrait and of finished frames were made under a prompt, and what the negative prompt's pass reads must have been
made under the negative prompt, or the flows would differ by more than their words. So a guided stream takes two caches, both of fixed
size, two passes a step and two to commit. A pair stands where the rollout otherwise holds one cache, memory, record or text.

At scale 1 there are no pairs. Source: Ho and Salimans, arXiv 2207.12598; as Wan 2.1 uses it, wan/text2video.py, `generate`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from torch import Tensor

from ..conditioning.driving import Driving
from ..errors import KnotForcingError
from ..models.card import ModelCard
from ..models.causal import Generator, Segment, TextKeys
from ..models.kv_cache import KVCache, KVCapture, KVView
from ..models.rope import Grid
from ..settings import RolloutSettings
from ..timeline import LatentSpan
from ..types import TextContext

Kind = TypeVar("Kind")


@dataclass(frozen=True, eq=False)
class Pair(Generic[Kind]):
    """One for the prompt, one for the negative prompt."""

    toward: Kind
    against: Kind


@dataclass(frozen=True, eq=False)
class PromptPair(Pair[TextKeys]):
    """The keys of both prompts, and the context they were made of."""

    context: TextContext | None


def guided(model: Generator, settings: RolloutSettings) -> "Generator | Guided":
    """The model as a rollout asks it: itself, or asked twice where the settings want guidance."""
    return Guided(model, settings.guidance) if settings.is_guided else model


class Guided:
    """A generator that is asked twice: what a rollout calls of one. Holds nothing of its own."""

    def __init__(self, model: Generator, scale: float) -> None:
        self.card, self._model, self._scale = model.card, model, scale

    def new_cache(self, settings: RolloutSettings, batch: int, height: int, width: int) -> "CachePair":
        return CachePair(*(self._model.new_cache(settings, batch, height, width) for _ in range(2)))

    def encode_text(self, context: TextContext | None) -> PromptPair:
        against = None if context is None else context.against
        return PromptPair(self._model.encode_text(context), self._model.encode_text(against), context)

    def forward(self, segments: Sequence[Segment], text: PromptPair) -> list[Tensor]:
        """The guided flow of every segment: [b, 16, f, h, w] each."""
        parts = [_parts(segment) for segment in segments]
        toward = self._model.forward([part.toward for part in parts], text.toward)
        against = self._model.forward([part.against for part in parts], text.against)
        return [a + self._scale * (t - a) for t, a in zip(toward, against, strict=True)]


class CachePair:
    """Two caches of one rollout, always of the same frames: KVCache's invariants hold for both at once."""

    def __init__(self, toward: KVCache, against: KVCache) -> None:
        self._caches = Pair(toward, against)

    @property
    def settings(self) -> RolloutSettings:
        return self._caches.toward.settings

    @property
    def grid(self) -> Grid:
        return self._caches.toward.grid

    @property
    def next_frame(self) -> int:
        return self._caches.toward.next_frame

    @property
    def frames(self) -> list[int]:
        return self._caches.toward.frames

    @property
    def num_bytes(self) -> int:
        return self._caches.toward.num_bytes + self._caches.against.num_bytes

    @contextmanager
    def set_anchor(self) -> Iterator[Pair[KVCapture]]:
        with self._caches.toward.set_anchor() as toward, self._caches.against.set_anchor() as against:
            yield Pair(toward, against)

    @contextmanager
    def commit(self, span: LatentSpan) -> Iterator[Pair[KVCapture]]:
        with self._caches.toward.commit(span) as toward, self._caches.against.commit(span) as against:
            yield Pair(toward, against)

    def apply_rope(self, anchor_position: int | None = None) -> Pair[KVView]:
        return Pair(self._caches.toward.apply_rope(anchor_position), self._caches.against.apply_rope(anchor_position))

    def tensors(self) -> dict[str, Tensor]:
        against = {f"against.{name}": tensor for name, tensor in self._caches.against.tensors().items()}
        return self._caches.toward.tensors() | against

    def restore(self, tensors: dict[str, Tensor]) -> None:
        mark = "against."
        self._caches.toward.restore({name: t for name, t in tensors.items() if not name.startswith(mark)})
        self._caches.against.restore({name.removeprefix(mark): t for name, t in tensors.items() if name.startswith(mark)})


def negative_prompt(card: ModelCard, driving: Driving, settings: RolloutSettings) -> str | None:
    """What guidance leads away from: the user's words, or the card's. None without guidance."""
    if not settings.is_guided:
        return None
    return card.negative_prompt if driving.negative_prompt is None else driving.negative_prompt


def remark_on_guidance(card: ModelCard, settings: RolloutSettings) -> Iterator[str]:
    """What guidance costs a model that is meant to be denoised without it."""
    if settings.is_guided and card.rollout.guidance == 1:
        yield (
            f"Guidance {settings.guidance:g} asks {card.name} twice at every step, so denoising takes twice as long and its past twice the "
            f"memory. It was made to be denoised without."
        )


def require_text_encoder(card: ModelCard, settings: RolloutSettings, *, has_text_encoder: bool) -> None:
    """Raises KnotForcingError where guidance is asked for and no prompt can be read."""
    if not settings.is_guided or (has_text_encoder and card.text.kind != "none"):
        return
    if card.text.kind == "none":
        raise KnotForcingError(f"{card.name} reads no prompts, so there is nothing that guidance could lead to. Set guidance to 1.")
    raise KnotForcingError(
        f"Guidance {settings.guidance:g} leads from a negative prompt to the prompt, and no text encoder is loaded that reads them. "
        f"Load the UMT5 text encoder for {card.name}, or set guidance to 1."
    )


def _parts(segment: Segment) -> Pair[Segment]:
    """The segment twice, each time with its own memory and record."""
    reads, record = segment.reads or Pair(None, None), segment.record or Pair(None, None)
    toward = replace(segment, reads=reads.toward, record=record.toward)
    return Pair(toward, replace(segment, reads=reads.against, record=record.against))
