"""All that a running rollout changes: the cache, the number of the chunk, the knot, the prompt's keys."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..conditioning.anchor import Anchor
from ..models.causal import Generator, TextKeys
from ..models.kv_cache import KVCache
from ..settings import RolloutSettings
from ..types import ChunkConditioning
from .chunk_context import anchor_segment
from .guidance import guided


@dataclass(eq=False)
class RolloutState:
    """All that changes while a stream runs. Made by the rollout, or restored from what was saved."""

    cache: KVCache
    chunk: int = 0  # the next one to be denoised
    knot: Tensor | None = None  # [b, c, k, h, w] denoised by the last chunk, not yet output; at the start it may be the portrait
    text: TextKeys | None = None  # keys of the current prompt: made from the driving, not saved

    @classmethod
    def start(cls, model: Generator, anchor: Anchor, settings: RolloutSettings) -> "RolloutState":
        batch, _, _, height, width = anchor.latent.shape
        cache = guided(model, settings).new_cache(settings, batch, height, width)
        return cls(cache, knot=anchor.latent if settings.begins_on_portrait else None)

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], model: Generator, anchor: Anchor, settings: RolloutSettings) -> "RolloutState":
        """The state that `tensors()` described, for the same model, portrait and settings."""
        state = cls.start(model, anchor, settings)
        state.cache.restore({name.removeprefix("cache."): t for name, t in tensors.items() if name.startswith("cache.")})
        state.chunk, state.knot = int(tensors["chunk"]), tensors.get("knot")
        if state.knot is not None:
            state.knot = state.knot.to(anchor.latent)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """The state as tensors, ready for a file."""
        tensors = {f"cache.{name}": t for name, t in self.cache.tensors().items()} | {"chunk": torch.tensor(self.chunk)}
        return tensors if self.knot is None else tensors | {"knot": self.knot.contiguous()}

    def read_prompt(self, model: Generator, anchor: Anchor, conditioning: ChunkConditioning) -> None:
        """Make the prompt's keys when it is a new one; the anchor saw the old prompt, so it is encoded again."""
        if self.text is not None and self.text.context is conditioning.text:
            return
        self.text = model.encode_text(conditioning.text)
        if self.cache.settings.anchor is not None:
            segment = anchor_segment(model, anchor)
            with self.cache.set_anchor() as record:
                model.forward([replace(segment, record=record)], self.text)
