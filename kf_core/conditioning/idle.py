"""Idle life: what a face does when nobody tells it to. Lids blink, eyes leave the viewer and come back, the head sways a little.

Every track is a pure function of a seed and the time: any stretch may be asked for at any time and in any order, costs the same at hour
ten as at second one, and needs neither state nor a list made beforehand. Chance is a hash of seed, purpose and number; moments are drawn in
blocks of half a minute whose borders both neighbours know. At second 0 the face is as the portrait shows it: eyes open, on the viewer.

Knows nothing of models; whoever lays these tracks under others lets the others cover them. Sources: 19.8 +- 4.9 blinks a minute with
highly skewed intervals (Garcia et al., Invest. Ophthalmol. Vis. Sci. 52:3419, 2011); 8 to 21 in silence and 10.5 to 32.5 in conversation
(Doughty, Optom. Vis. Sci. 78:712, 2001); about 0.1 s to shut (Stern, Walrath, Goldstein, Psychophysiology 21:22, 1984); looks at a face of
2.2 s, three fifths of a conversation (Rogers et al., Sci. Rep. 8:4271, 2018). A blink is as wide as those that kf-tiny was trained on.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..content_id import frozen_names
from .expression import ExpressionTrack
from .track import At, Layers, Track, smoothstep

NATURAL = 1.0  # how much idle life is as people have it
BLOCK_SECONDS = 32.0  # of the moments drawn together ...
BORDER_SHIFT = 4.0  # ... and how far, at most, its borders are from their places, in seconds
DRAWS = 64  # chances that a block may take

CLOSING, SHUT, OPENING = 0.10, 0.05, 0.20  # seconds of a blink
BLINK_GAPS = (3.1, 0.5, 1.2, 8.0)  # seconds: median, spread of the logarithm, shortest, longest
FIRST_BLINK = 0.7  # seconds: none before
GLANCE_GAPS = (1.6, 0.55, 0.6, 4.5)
LOOKS_AT_VIEWER = 0.62  # of the looks
GLANCE = (0.22, 0.55)  # how far a look away goes: least, most; 1 is as far as eyes turn
UNREST = 0.05  # of a look at the viewer
SACCADE = 0.12  # seconds that eyes take: two frames
SWAY = {"yaw": 3.5, "pitch": 2.0, "roll": 1.8}  # degrees, one standard deviation
SWAY_GRIDS = ((2.4, 0.85), (0.9, 0.35))  # seconds between the knots of a spline, its share
SWAY_BEGINS = 1.5  # seconds until the head, at rest at first, sways in full

PURPOSES = ("border", "blink", "kept", "glance", "where", "how far", "yaw", "pitch", "roll")  # of chance; a new one goes to the end


@dataclass(frozen=True)
class Idle:
    """Idle life of one stream. `amount` 0..1: how many of the blinks there are, and how far eyes and head go."""

    seed: int = 0
    amount: float = NATURAL

    def expression(self) -> tuple[ExpressionTrack, ...]:
        """Lids and eyes; none where there is no life."""
        if not self.amount:
            return ()
        tracks = {"blink": Blinks(self.seed, self.amount), "gaze_x": Glances(self.seed, "x", self.amount)}
        return tuple(ExpressionTrack(name, track) for name, track in (tracks | {"gaze_y": Glances(self.seed, "y", self.amount)}).items())

    def head_under(self, head: dict[str, Track]) -> dict[str, Track]:
        """Yaw, pitch and roll in degrees, covered by what somebody wants of the head."""
        if not self.amount:
            return head
        sway = {axis: Sway(self.seed, axis, degrees * self.amount) for axis, degrees in SWAY.items()}
        return {axis: Layers((track, head[axis])) if axis in head else track for axis, track in sway.items()}


@dataclass(frozen=True)
class Always:
    """A track that has something to say at every moment."""

    def speaks(self, first: float, last: float) -> bool:
        return True


@frozen_names("idle blinks", seed="seed", amount="amount")
@dataclass(frozen=True)
class Blinks(Always):
    """Lids, 0 open .. 1 shut."""

    seed: int
    amount: float = NATURAL

    def at(self, times: np.ndarray) -> At:
        moments, numbers = _moments(self.seed, "blink", BLINK_GAPS, times)
        happens = (moments >= FIRST_BLINK) & (chance(self.seed, "kept", numbers) < self.amount)
        since = times[:, None] - moments[happens]  # the moment is when the eyes are shut
        lids = smoothstep(since / CLOSING + 1) * (1 - smoothstep((since - SHUT) / OPENING))
        return At(lids.max(axis=1, initial=0.0), np.ones(len(times)))


@frozen_names("idle glances", seed="seed", axis="axis", amount="amount")
@dataclass(frozen=True)
class Glances(Always):
    """Where the eyes look, -1..1 across or down: at the viewer, away, at the viewer."""

    seed: int
    axis: Literal["x", "y"]
    amount: float = NATURAL

    def at(self, times: np.ndarray) -> At:
        moments, numbers = _moments(self.seed, "glance", GLANCE_GAPS, times)
        angle, far = 2 * math.pi * chance(self.seed, "where", numbers), chance(self.seed, "how far", numbers)
        is_away = (far >= LOOKS_AT_VIEWER) & (moments >= FIRST_BLINK)
        part = np.where(is_away, (far - LOOKS_AT_VIEWER) / (1 - LOOKS_AT_VIEWER), 0)
        reach = np.where(is_away, GLANCE[0] + (GLANCE[1] - GLANCE[0]) * part, UNREST * (moments >= FIRST_BLINK))
        aims = self.amount * reach * (np.cos(angle) if self.axis == "x" else 0.6 * np.sin(angle))  # eyes go farther across than up and down
        last = np.searchsorted(moments, times, side="right") - 1
        on_its_way = smoothstep((times - moments[last]) / SACCADE)
        return At(aims[last - 1] + (aims[last] - aims[last - 1]) * on_its_way, np.ones(len(times)))


@frozen_names("idle sway", seed="seed", axis="axis", degrees="degrees")
@dataclass(frozen=True)
class Sway(Always):
    """One angle of the head: noise without anything fast in it, `degrees` at one standard deviation."""

    seed: int
    axis: Literal["yaw", "pitch", "roll"]
    degrees: float

    def at(self, times: np.ndarray) -> At:
        swayed = sum(share * _spline_noise(self.seed, self.axis, grid, times / gap) for grid, (gap, share) in enumerate(SWAY_GRIDS))
        return At(self.degrees * swayed * smoothstep(times / SWAY_BEGINS), np.ones(len(times)))


def chance(seed: int, purpose: str, numbers: np.ndarray) -> np.ndarray:
    """Uniform 0..1 for each whole number: the same for ever, on every machine. Source: SplitMix64's finaliser (Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        stream = _mix(_mix(np.uint64(seed % 2**64)) + np.uint64(PURPOSES.index(purpose)))
    mixed = _mix(np.asarray(numbers).astype(np.int64).astype(np.uint64) ^ stream)
    return (mixed >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _normal(seed: int, purpose: str, numbers: np.ndarray) -> np.ndarray:
    """Standard normal for each whole number (Box-Muller)."""
    u, v = chance(seed, purpose, 2 * numbers), chance(seed, purpose, 2 * numbers + 1)
    return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * math.pi * v)


def _moments(seed: int, purpose: str, gaps: tuple[float, float, float, float], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments in seconds from well before the first of `times` to well after the last, and the number of each."""
    first, last = math.floor(times.min() / BLOCK_SECONDS), math.floor(times.max() / BLOCK_SECONDS)
    blocks = [_block(seed, purpose, gaps, block) for block in range(first - 1, last + 2)]
    moments = np.concatenate(blocks)
    numbers = np.concatenate([DRAWS * (first - 1 + place) + np.arange(len(found)) for place, found in enumerate(blocks)])
    return moments, numbers


def _block(seed: int, purpose: str, gaps: tuple[float, float, float, float], block: int) -> np.ndarray:
    """The moments from one border on: as many gaps as fill it best, drawn out or pressed until the last ends on the next one."""
    borders = np.array([block, block + 1])
    start, stop = BLOCK_SECONDS * borders + BORDER_SHIFT * (2 * chance(seed, "border", borders) - 1)
    median, spread, shortest, longest = gaps
    drawn = median * np.exp(spread * _normal(seed, purpose, DRAWS * block + np.arange(DRAWS)))
    ends = drawn.clip(shortest, longest).cumsum()
    count = int(np.abs(ends - (stop - start)).argmin())
    return start + np.concatenate(([0.0], ends[:count])) * ((stop - start) / ends[count])


def _spline_noise(seed: int, purpose: str, grid: int, places: np.ndarray) -> np.ndarray:
    """A cubic B-spline over random knots one apart: smooth, about 1 at one standard deviation."""
    first = np.floor(places).astype(np.int64)
    part = places - first
    weights = ((1 - part) ** 3 / 6, (3 * part**3 - 6 * part**2 + 4) / 6, (-3 * part**3 + 3 * part**2 + 3 * part + 1) / 6, part**3 / 6)
    knots = [_normal(seed, purpose, 2 * (first + k) + grid) for k in range(4)]
    return 1.45 * sum(weight * knot for weight, knot in zip(weights, knots, strict=True))
