"""Where in time each piece of a sound belongs: by its time stamp, as a player has it, and not by counting.

    stamps   |0 ----- 2|          |3.5 ----- 6|          what comes out: 2 s, silence of 1.5 s, 2.5 s

Stamps are rounded, shake, are missing or wrong now and then, and begin anew in files that were joined. So one stamp alone moves
nothing: what comes next is moved only where it and most of the stamps after it say so. Knows nothing of files.
"""

import statistics
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TOLERANCE = 0.02  # seconds that a stamp may be off: less than half a frame of the video
LOOK_AHEAD = 8  # stamps asked after the one in question
BACKWARDS = 1.0  # seconds; where stamps go back further, another recording begins, and its stamps with it
FORWARDS = 10.0  # the same for a jump ahead, in kinds of file whose stamps may jump (broadcasts), as FFmpeg has it
LONGEST_PAUSE = 12 * 3600.0  # seconds; a longer one is a wrong stamp


@dataclass(frozen=True)
class Stamped:
    """A piece of sound as a file has it."""

    time: float | None  # seconds, on the file's own clock; None: the file does not say
    seconds: float
    content: Any = None


def placed(pieces: Iterator[Stamped], start: float, may_jump: bool = False) -> Iterator[tuple[float, Stamped]]:
    """The pieces, each with how much silence has to come before it, in seconds; below 0, how much of it was there already.

    `start`: what the file's clock shows at the beginning. `may_jump`: a jump ahead may be no pause, but a new clock."""
    ahead: deque[Stamped] = deque()
    place, shift = 0.0, -start  # where the next piece comes by counting; what makes a stamp a place
    over = False
    while True:
        while not over and len(ahead) <= LOOK_AHEAD:
            piece = next(pieces, None)
            over = piece is None
            if not over:
                ahead.append(piece)
        if not ahead:
            return
        silence = _agreed(ahead, place - shift)
        if silence < -BACKWARDS or silence > (FORWARDS if may_jump else LONGEST_PAUSE):
            shift, silence = shift - silence, 0.0
        piece = ahead.popleft()
        silence = max(silence, -piece.seconds)
        place += silence + piece.seconds
        yield silence, piece


def _agreed(ahead: deque[Stamped], expected: float) -> float:
    """By how many seconds the next piece comes late (early: below 0), as far as the ones after it agree; 0 for what a stamp may be off."""
    if ahead[0].time is None or abs(own := ahead[0].time - expected) <= TOLERANCE:
        return 0.0
    off, at = [], expected
    for piece in ahead:
        if piece.time is not None:
            off.append(piece.time - at)
        at += piece.seconds
    most = statistics.median_low(off) if own > 0 else statistics.median_high(off)
    if abs(most) <= TOLERANCE or (most > 0) != (own > 0):
        return 0.0
    return min(own, most) if own > 0 else max(own, most)
