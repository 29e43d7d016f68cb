"""How a run goes, lap by lap: from the frames before to these, whoever made them, one stage after the other or side by side.

Reads what a stream or a film yields and knows no stage; for runs of hours, and for frames that are made while the next ones are drawn.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter

from ..memory import held, resident
from ..types import FrameChunk, LatentChunk, Step


@dataclass(frozen=True)
class Lap:
    """Some frames that are done, and how it stood then."""

    chunk: int  # they are of
    frames: int
    seconds: float  # since the frames before them
    waiting: int  # chunks that were drawn and whose frames were not there, the most at a time since then
    resident: int  # bytes of the process
    held: int | None = None  # bytes, once freed pages were given back; None where that was not done


def laps(items: Iterable[Step | LatentChunk | FrameChunk], held_every: int = 0) -> Iterator[Lap]:
    """A lap for each FrameChunk. `held_every`: chunks from one reading of what is held to the next; 0: none."""
    before = perf_counter()
    drawn = done = waiting = 0  # chunks
    last = None
    for item in items:
        if isinstance(item, LatentChunk):
            drawn += 1
            waiting = max(waiting, drawn - done)
        elif isinstance(item, FrameChunk):
            now, is_new = perf_counter(), item.index != last  # frames of one chunk may come in two parts
            done += is_new
            is_due = is_new and held_every > 0 and item.index % held_every == 0
            yield Lap(item.index, item.span.length, now - before, waiting, resident(), held() if is_due else None)
            before, waiting, last = now, drawn - done, item.index


def frames_per_second(run: Iterable[Lap]) -> float:
    """Sustained: without chunk 0, which warms up, unless there is no other."""
    every = list(run)
    settled = [lap for lap in every if lap.chunk > 0] or every
    return sum(lap.frames for lap in settled) / sum(lap.seconds for lap in settled)
