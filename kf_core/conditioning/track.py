"""A value over time: smile, motion strength, an angle. Tracks may be silent at times, and later ones lie over earlier ones.

A track answers for many moments at once with `At`: what it says, already faded by how much it has to say. So layers compose
like translucent frames, everything fades in and out of rest (0), and a moment nobody speaks for has weight 0: not known.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from ..content_id import frozen_names
from ..errors import KnotForcingError

EASE_SECONDS = 0.3


class At(NamedTuple):
    values: np.ndarray  # [n] faded: multiplied by the weight
    weights: np.ndarray  # [n] 0..1; 0: nothing is known here


class Track(Protocol):
    def at(self, times: np.ndarray) -> At:
        """`times` in seconds, ascending."""
        ...

    def speaks(self, first: float, last: float) -> bool:
        """False where the track is certainly silent from `first` to `last` seconds: it need not be asked."""
        ...


@frozen_names("keyframes", keys="keys")
@dataclass(frozen=True)
class Keyframes:
    """(seconds, value) pairs, eased from one to the next; the first holds before its moment, the last one after it."""

    keys: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple((float(moment), float(value)) for moment, value in self.keys))
        if not self.keys:
            raise KnotForcingError("A track over time has no key. Give at least one pair of seconds and value.")
        if not np.isfinite(self.keys).all():
            raise KnotForcingError("A key of a track over time is not a number. Give each key as seconds and value.")
        moments = [moment for moment, _ in self.keys]
        if any(later <= earlier for earlier, later in zip(moments, moments[1:], strict=False)):
            raise KnotForcingError(f"The keys of a track stand at {moments} s; each must come later than the one before it.")

    def at(self, times: np.ndarray) -> At:
        moments, values = self._columns
        after = np.searchsorted(moments, times, side="right").clip(1, max(1, len(moments) - 1))
        before, after = after - 1, np.minimum(after, len(moments) - 1)
        part = smoothstep((times - moments[before]) / np.maximum(moments[after] - moments[before], 1e-9))
        return At(values[before] + (values[after] - values[before]) * part, np.ones(len(times)))

    def speaks(self, first: float, last: float) -> bool:
        return True

    @cached_property
    def _columns(self) -> np.ndarray:
        return np.array(self.keys).T


def constant(value: float) -> Keyframes:
    return Keyframes(((0.0, value),))


@frozen_names("held", value="value", start="start", stop="stop")
@dataclass(frozen=True)
class Held:
    """One value from `start` to `stop` seconds: eases in from its start, eases out after its end."""

    value: float
    start: float = 0.0
    stop: float = float("inf")

    def at(self, times: np.ndarray) -> At:
        weights = presence(times, self.start, self.stop)
        return At(self.value * weights, weights)

    def speaks(self, first: float, last: float) -> bool:
        return self.start <= last and first <= self.stop + EASE_SECONDS


@frozen_names("gesture", value="value", hz="hz", burst="burst", period="period", is_two_sided="is_two_sided", start="start", stop="stop")
@dataclass(frozen=True)
class Gesture:
    """A movement that comes again: in the first `burst` seconds of every `period`, swings of `value` at `hz`, then rest."""

    value: float
    hz: float
    burst: float
    period: float
    is_two_sided: bool = False  # to both sides (shaking the head) or to one and back (nodding)
    start: float = 0.0
    stop: float = float("inf")

    def at(self, times: np.ndarray) -> At:
        weights = presence(times, self.start, self.stop)
        phase = np.mod(times - self.start, self.period)
        if self.is_two_sided:
            swing = np.sin(2 * np.pi * self.hz * phase) * np.sin(np.pi * phase / self.burst)
        else:
            swing = np.sin(np.pi * self.hz * phase) ** 2
        return At(self.value * swing * (phase < self.burst) * weights, weights)

    def speaks(self, first: float, last: float) -> bool:
        return self.start <= last and first <= self.stop + EASE_SECONDS


@frozen_names("layers", tracks="tracks")
@dataclass(frozen=True)
class Layers:
    """Tracks over one another: where a later one speaks, it covers the earlier ones."""

    tracks: tuple[Track, ...]

    def at(self, times: np.ndarray) -> At:
        values, weights = np.zeros(len(times)), np.zeros(len(times))
        if not len(times):
            return At(values, weights)
        first, last = float(times[0]), float(times[-1])
        for track in self.tracks:
            if not track.speaks(first, last):
                continue
            over = track.at(times)
            values, weights = over.values + (1 - over.weights) * values, over.weights + (1 - over.weights) * weights
        return At(values, weights)

    def speaks(self, first: float, last: float) -> bool:
        return any(track.speaks(first, last) for track in self.tracks)


def presence(times: np.ndarray, start: float, stop: float) -> np.ndarray:
    """0 outside [start, stop], 1 inside, eased on the way in and out. What begins with the stream is there from its first frame."""
    ease = min(EASE_SECONDS, (stop - start) / 2)
    rising = np.ones(len(times)) if start <= 0 else smoothstep((times - start) / ease)
    return rising if np.isinf(stop) else rising * (1 - smoothstep((times - stop) / ease))


def smoothstep(part: np.ndarray) -> np.ndarray:
    part = np.clip(part, 0, 1)
    return part * part * (3 - 2 * part)
