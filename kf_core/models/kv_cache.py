"""What the generator remembers of the past: what is pinned for ever, and the last frames in a window.

Pinned are the anchor (the portrait) and, for models that want them, the first committed frames. The anchor's place in time moves with
the rollout ("running ahead"), so its keys are also kept before RoPE; the window's keys never move and are rotated once. Softmax does
not care about the order of keys, so the window is a ring that needs no shifting. Knows nothing of denoising or of audio.
Source: Knot Forcing, arXiv 2512.21734; window and sink as in Self-Forcing and LongLive.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import KnotForcingError
from ..settings import RolloutSettings
from ..timeline import LatentSpan
from .rope import Grid, Rotation, rotation


class KVCache:
    """Anchor, pinned frames and sliding window of one rollout.

    Invariants
    - Frames are committed once, in order: the next commit starts at `next_frame`.
    - Reading never changes what is remembered, so denoising steps may read as often as they like.
    - A commit that fails half-way leaves the cache as it was.
    - Memory is fixed when the cache is made; see `num_bytes`.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        *,
        batch: int,
        layers: int,
        heads: int,
        head_dim: int,
        grid: Grid,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.grid, self.head_dim = settings, grid, head_dim
        self.next_frame = 0
        self._anchor_slots = 0 if settings.anchor is None else 1
        self._has_anchor = False
        self._first_ring_slot = self._anchor_slots + settings.pinned
        slots = self._first_ring_slot + settings.past

        def tokens(frames: int) -> Tensor:
            return torch.zeros(layers, batch, heads, frames * grid.tokens, head_dim, dtype=dtype, device=device)

        # Keys before RoPE, [layer, b, n, t, d], of the slots whose position changes: they are rotated anew. All others are rotated once.
        self._moving_slots = self._first_ring_slot if settings.pinned_place == "in front" else self._anchor_slots
        self._keys = tokens(self._moving_slots)
        # What attention reads: remembered frames first, then room for the frames being denoised.
        self._rotated_keys = tokens(slots + settings.denoised)
        self._values = tokens(slots + settings.denoised)
        self._rope_positions: dict[int, float] = {}  # moving slot -> the position that its keys are rotated to
        self._rope_version = 0

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self._keys, self._rotated_keys, self._values))

    @property
    def frames(self) -> list[int]:
        """The committed frames that are remembered, in the order of their slots."""
        pinned = list(range(min(self.next_frame, self.settings.pinned)))
        window = range(max(self.settings.pinned, self.next_frame - self.settings.past), self.next_frame)
        return pinned + sorted(window, key=self._slot)

    @contextmanager
    def set_anchor(self) -> Iterator["KVCapture"]:
        """Record the one frame that stands for the portrait, replacing an earlier one."""
        if not self._anchor_slots:
            raise ValueError("these settings have no anchor")
        record = KVCapture()
        yield record
        self._write(record, 0, {0: 0})
        self._has_anchor = True

    @contextmanager
    def commit(self, span: LatentSpan) -> Iterator["KVCapture"]:
        """Record the frames of `span`; they are remembered when the block ends without an error."""
        if span.start != self.next_frame:
            raise ValueError(f"commit out of order: the cache expects frame {self.next_frame}, got {span}")
        if self.settings.window is None and span.stop > self.settings.pinned + self.settings.past:
            raise KnotForcingError(
                f"This stream has an unlimited window with room for {self.settings.past} latent frames, and frame {span.stop - 1} does not "
                f"fit. Raise `max_frames`, or set a `window` for a stream without end."
            )
        record = KVCapture()
        yield record
        kept = [f for f in span if f < self.settings.pinned or f >= span.stop - self.settings.past]
        self._write(record, span.start, {f - span.start: self._slot(f) for f in kept})
        self.next_frame = span.stop

    def apply_rope(self, anchor_position: int | None = None) -> "KVView":
        """Turn keys to where they stand now, those that moved or are new; valid until the next `apply_rope`. Done once per chunk."""
        if self._anchor_slots and not self._has_anchor:
            raise ValueError("the anchor was never recorded")
        if bool(self._anchor_slots) != (anchor_position is not None):
            raise ValueError(f"anchor position {anchor_position} does not fit settings with anchor rule {self.settings.anchor}")
        frames = self.frames
        positions = [anchor_position] * self._anchor_slots + self._positions(frames)
        self._rope_version += 1
        moving = dict(enumerate(positions[: self._moving_slots]))
        for slots in _runs([slot for slot, position in moving.items() if self._rope_positions.get(slot) != position]):
            self._rotate(slots, [moving[slot] for slot in slots], self._tokens(self._keys, slots))
        self._rope_positions = moving
        return self._view(len(positions) * self.grid.tokens)

    def _rotate(self, slots: range, positions: list[float], keys: Sequence[Tensor]) -> None:
        """Put each layer's keys [b, n, t, d] of neighbouring slots where attention reads them, rotated to their positions."""
        rotate = self._rotation(positions)
        for there, own in zip(self._tokens(self._rotated_keys, slots), keys, strict=True):  # a layer at a time: less at once
            there.copy_(rotate(own))

    def _rotation(self, positions: list[float]) -> Rotation:
        places = torch.tensor(positions, dtype=torch.float64)
        return rotation(places, self.grid, self.head_dim, self._rotated_keys.dtype, self._rotated_keys.device)

    def _of(self, buffer: Tensor, slot: int) -> Tensor:
        return self._tokens(buffer, range(slot, slot + 1))

    def _tokens(self, buffer: Tensor, slots: range) -> Tensor:
        return buffer[..., slots.start * self.grid.tokens : slots.stop * self.grid.tokens, :]

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, for saving. The counterpart is `restore`."""
        used = self._used()
        moving = min(used, self._moving_slots * self.grid.tokens)
        return {
            "keys": self._keys[..., :moving, :].contiguous(),
            "rotated_keys": self._rotated_keys[..., moving:used, :].contiguous(),
            "values": self._values[..., :used, :].contiguous(),
            "next_frame": torch.tensor(self.next_frame),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Remember what `tensors()` of a cache with the same settings and sizes gave. Without `rotated_keys` all keys are before RoPE."""
        next_frame, self.next_frame = self.next_frame, int(tensors["next_frame"])
        values = tensors["values"]
        self._has_anchor = self._anchor_slots > 0 and values.shape[3] > 0  # a cache saved before its first use is empty
        used = self._used()
        moving = min(used, self._moving_slots * self.grid.tokens)
        own = tensors["keys"].shape[3] if "rotated_keys" not in tensors else moving
        expected = (*self._values.shape[:3], used, self.head_dim)
        if tuple(values.shape) != expected or own not in (moving, used) or tensors["keys"].shape[3] != own:
            self.next_frame = next_frame
            raise ValueError(f"a saved cache of shape {tuple(values.shape)} does not fit one of {expected}")
        keys = tensors["keys"].to(self._keys)
        self._keys[..., :moving, :] = keys[..., :moving, :]
        self._values[..., :used, :] = values.to(self._values)
        self._rope_positions.clear()
        if "rotated_keys" in tensors:
            self._rotated_keys[..., moving:used, :] = tensors["rotated_keys"].to(self._rotated_keys)
        elif used > moving:
            still = range(self._moving_slots, used // self.grid.tokens)
            positions = ([0] * self._anchor_slots + self._positions(self.frames))[still.start : still.stop]
            self._rotate(still, positions, keys[..., moving:, :])

    def _view(self, used: int) -> "KVView":
        return KVView(self, self._rotated_keys, self._values, used)

    def _used(self) -> int:
        return (self._anchor_slots * self._has_anchor + len(self.frames)) * self.grid.tokens

    def _slot(self, frame: int) -> int:
        if frame < self.settings.pinned:
            return self._anchor_slots + frame
        return self._first_ring_slot + (frame - self.settings.pinned) % self.settings.past

    def _positions(self, frames: list[int]) -> list[int]:
        if self.settings.pinned_place == "absolute":
            return frames
        pinned = min(self.next_frame, self.settings.pinned)
        window = min((f for f in frames if f >= self.settings.pinned), default=self.next_frame)
        return [window - pinned + f if f < self.settings.pinned else f for f in frames]

    def _write(self, record: "KVCapture", first_frame: int, slots: dict[int, int]) -> None:
        """Copy recorded frames (by their place in the record) into slots. Nothing is written unless every layer was recorded."""
        if len(record.keys) != self._values.shape[0]:
            raise ValueError(f"{len(record.keys)} of {self._values.shape[0]} layers were recorded")
        still = {place: slot for place, slot in slots.items() if slot >= self._moving_slots}
        if still:
            rotate = self._rotation([first_frame + place for place in still])
        for layer, (keys, values) in enumerate(zip(record.keys, record.values, strict=True)):
            for place, slot in slots.items():
                self._of(self._values[layer], slot).copy_(self._of(values, place))
                if slot < self._moving_slots:
                    self._of(self._keys[layer], slot).copy_(self._of(keys, place))
            if still:
                own = torch.cat([self._of(keys, place) for place in still], dim=-2).to(self._rotated_keys.dtype)
                for slot, rotated in zip(still.values(), rotate(own).split(self.grid.tokens, dim=-2), strict=True):
                    self._of(self._rotated_keys[layer], slot).copy_(rotated)
        for slot in slots.values():
            self._rope_positions.pop(slot, None)


class KVCapture:
    """The keys (before RoPE) and values of one pass, layer by layer. Detached: gradients stay within a chunk."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []  # [b, n, t, d] each
        self.values: list[Tensor] = []

    def __call__(self, keys: Tensor, values: Tensor) -> None:
        self.keys.append(keys.detach())
        self.values.append(values.detach())


class KVView:
    """The cache as one chunk reads it: every remembered frame at its place."""

    def __init__(self, cache: KVCache, placed: Tensor, values: Tensor, used: int) -> None:
        self._cache, self._rotated_keys, self._values, self._used = cache, placed, values, used
        self._rope_version = cache._rope_version

    def read(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Remembered keys and values followed by those of the frames being denoised: [b, n, t, d] each.

        `keys` are already turned. Raises ValueError when the cache was placed anew since."""
        self.refuse_stale()
        if torch.is_grad_enabled():  # a graph holds on to what it reads, and these buffers will be written again
            remembered = slice(None, self._used)
            return (
                torch.cat((self._rotated_keys[layer, :, :, remembered], keys), dim=2),
                torch.cat((self._values[layer, :, :, remembered], values), dim=2),
            )
        end = self._used + keys.shape[2]
        self._rotated_keys[layer, :, :, self._used : end] = keys
        self._values[layer, :, :, self._used : end] = values
        return self._rotated_keys[layer, :, :, :end], self._values[layer, :, :, :end]

    def refuse_stale(self) -> None:
        """Raises ValueError when the cache was placed anew since."""
        if self._rope_version != self._cache._rope_version:
            raise ValueError("this memory is stale: the cache was placed anew since")


def _runs(slots: list[int]) -> Iterator[range]:
    """Ascending numbers as ranges without gaps: 0 1 4 -> 0..1, 4."""
    start = 0
    for index in range(1, len(slots) + 1):
        if index == len(slots) or slots[index] != slots[index - 1] + 1:
            yield range(slots[start], slots[index - 1] + 1)
            start = index
