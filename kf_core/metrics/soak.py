"""Whether a long run stays what it was at the beginning: time and memory of every chunk, and what waits between the stages.

A run of an hour is one value that can be kept, read again and drawn. What was running, where and how is said in its `facts`.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median, quantiles

from .chunk_timing import Lap, frames_per_second
from .line_plot import Panel, line_plot

MIB = 2**20
SETTLED = 3  # chunks after which every buffer exists
DRAWN = 240  # points at most that a line is drawn through


@dataclass(frozen=True)
class LongRun:
    """Its laps in order, and what is to be said of it: model, size, precision, machine, command."""

    facts: dict[str, str]
    fps: float
    laps: tuple[Lap, ...]

    def to_json(self) -> str:
        columns = {name: [getattr(lap, name) for lap in self.laps] for name in Lap.__dataclass_fields__}
        return json.dumps({"facts": self.facts, "fps": self.fps, "laps": columns})

    @classmethod
    def from_json(cls, text: str) -> "LongRun":
        """Raises ValueError or KeyError for what is none."""
        data = json.loads(text)
        rows = zip(*(data["laps"][name] for name in Lap.__dataclass_fields__), strict=True)
        return cls(data["facts"], data["fps"], tuple(Lap(*row) for row in rows))

    @property
    def frames(self) -> int:
        return sum(lap.frames for lap in self.laps)

    @property
    def held(self) -> list[tuple[int, int]]:
        """(chunk, bytes) wherever what the process holds was read, from the first settled chunk on."""
        return [(lap.chunk, lap.held) for lap in self.laps if lap.held is not None and lap.chunk >= SETTLED]

    def tenths(self) -> list[float]:
        """Median seconds per chunk in each tenth of the run."""
        settled = [lap.seconds for lap in self.laps if lap.chunk >= SETTLED]
        size = len(settled) / 10
        return [median(settled[round(size * i) : round(size * (i + 1))]) for i in range(10)] if len(settled) >= 10 else []

    def summary(self) -> str:
        speed, took = frames_per_second(self.laps), sum(lap.seconds for lap in self.laps)
        lines = [
            f"{self.frames:,} frames ({self.frames / self.fps / 60:.1f} minutes) in {took / 60:.1f} minutes: "
            f"{speed:.1f} a second, {speed / self.fps:.2f} x real time"
        ]
        if tenths := self.tenths():
            lines.append(f"seconds per chunk, median of each tenth: {' '.join(f'{seconds:.3f}' for seconds in tenths)}")
            lines.append(f"last tenth over first: {tenths[-1] / tenths[0]:.3f}")
        settled = [lap.resident for lap in self.laps if lap.chunk >= SETTLED]
        if held := self.held:
            (first, before), (last, after) = held[0], held[-1]
            lines.append(
                f"memory held: {before / MIB:.1f} MiB at chunk {first}, {after / MIB:.1f} at chunk {last}, "
                f"{max(bytes for _, bytes in held) / MIB:.1f} at most"
            )
        if settled:
            lines.append(f"resident: {min(settled) / MIB:.0f} to {max(settled) / MIB:.0f} MiB")
        lines.append(f"drawn and not yet made into frames: {max(lap.waiting for lap in self.laps)} chunk at most")
        return "\n".join(lines)

    def svg(self) -> str:
        """Time per chunk, memory, and what waits, over the minutes of the video."""
        ends, shown = [], 0
        for lap in self.laps:
            shown += lap.frames
            ends.append(shown / self.fps / 60)
        rows = [(end, lap) for end, lap in zip(ends, self.laps, strict=True) if lap.chunk >= SETTLED]
        buckets = [rows[i : i + -(-len(rows) // DRAWN)] for i in range(0, len(rows), -(-len(rows) // DRAWN))]

        def of(value):
            return [[value(lap) for _, lap in bucket] for bucket in buckets]

        times = of(lambda lap: lap.seconds)
        slow = sorted(lap.seconds for _, lap in rows)[int(0.999 * (len(rows) - 1))]
        memory = {"resident, the most": [max(values) / MIB for values in of(lambda lap: lap.resident)]}
        if held := [lap.held / MIB for _, lap in rows if lap.held is not None]:
            memory["held (freed pages given back)"] = held
        time, waiting = "median, and nine of ten", {"the most": [max(values) for values in of(lambda lap: lap.waiting)]}
        band = {time: (_share(times, 0.05), _share(times, 0.95))}
        along = (rows[0][0], rows[-1][0], "minutes of video")
        panels = [  # every one begins at 0, so that what is flat looks flat
            Panel("seconds per chunk", {time: [median(t) for t in times]}, *along, bands=band, y_range=(0, 1.25 * slow)),
            Panel("memory of the process, MiB", memory, *along, y_range=(0, 1.15 * max(map(max, memory.values())))),
            Panel("chunks drawn and not yet made into frames", waiting, *along, y_range=(0, 2)),
        ]
        notes = [f"{name}: {said}" for name, said in self.facts.items()]
        return line_plot(panels, columns=1, title=f"{self.frames:,} frames in one run", notes=notes)


def follow(laps: Iterable[Lap], facts: dict[str, str], fps: float, progress: Callable[[Lap], object] = lambda lap: None) -> LongRun:
    """The run whose laps these are, as far as it comes: stopped by Ctrl-C, it is what was run until then."""
    run: list[Lap] = []
    try:
        for lap in laps:
            run.append(lap)
            progress(lap)
    except KeyboardInterrupt:
        if not run:
            raise
    return LongRun(facts, fps, tuple(run))


def _share(buckets: list[list[float]], share: float) -> list[float]:
    return [bucket[0] if len(bucket) < 2 else quantiles(bucket, n=20, method="inclusive")[0 if share < 0.5 else -1] for bucket in buckets]
