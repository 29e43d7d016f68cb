"""The face over time: smile, brows, gaze and lids, each known or left to the model.

A driving step holds the values in the card's order, then as many flags: 1 where the value is known, 0 where the model is free
(its value is then 0). Knows nothing of frames; how a head is held is `pose.py`'s.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..content_id import frozen_names
from ..errors import KnotForcingError
from .track import Keyframes, Layers, Track, constant

EXPRESSION = ("smile", "brows", "gaze_x", "gaze_y", "blink")  # what kf-tiny obeys, in order
RANGES = {
    "smile": (-1.0, 1.0),  # corners of the mouth down .. up
    "brows": (-1.0, 1.0),  # knitted .. raised
    "gaze_x": (-1.0, 1.0),  # to the viewer's left .. right
    "gaze_y": (-1.0, 1.0),  # up .. down
    "blink": (0.0, 1.0),  # eyes open .. shut
}


@frozen_names("expression", name="name", track="track")
@dataclass(frozen=True)
class ExpressionTrack:
    """One value of the face over time: a number, (seconds, value) keys, or any track."""

    name: str
    track: Track

    def __post_init__(self) -> None:
        if self.name not in RANGES:
            raise KnotForcingError(f"There is no expression called {self.name!r}. The face has: {', '.join(RANGES)}.")
        if isinstance(self.track, int | float):
            object.__setattr__(self, "track", constant(self.track))
        elif isinstance(self.track, tuple | list):
            object.__setattr__(self, "track", Keyframes(tuple(self.track)))
        lowest, highest = RANGES[self.name]
        if isinstance(self.track, Keyframes):
            for moment, value in self.track.keys:
                if not lowest <= value <= highest:
                    raise KnotForcingError(
                        f"The {self.name} at {moment:g} s is {value:g}; it must lie between {lowest:g} and {highest:g}. Change that key."
                    )


def merged(tracks: Iterable[ExpressionTrack]) -> dict[str, Track]:
    """One track per name; where two speak of the same name, the later one covers the earlier."""
    layers: dict[str, list[Track]] = {}
    for track in tracks:
        layers.setdefault(track.name, []).append(track.track)
    return {name: Layers(tuple(several)) for name, several in layers.items()}


def expression_steps(tracks: dict[str, Track], names: Sequence[str], times: np.ndarray) -> Tensor:
    """The values in the order of `names`, then their flags: [s, 2 * names] float32."""
    values, known = np.zeros((len(times), len(names))), np.zeros((len(times), len(names)))
    for column, name in enumerate(names):
        if name in tracks:
            at = tracks[name].at(times)
            values[:, column] = at.values.clip(*RANGES.get(name, (-1.0, 1.0)))
            known[:, column] = at.weights > 0
    return torch.from_numpy(np.concatenate((values, known), axis=1).astype(np.float32))
