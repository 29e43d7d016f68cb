"""How fast a stream runs and whether it stays so: first frame, frames a second, seconds and memory per chunk.

Measures the real stream, generator and decoder together, chunk by chunk. A speed means nothing without the machine it was
measured on: `machine()` says which.

Resident memory counts what the stream holds and what the allocator keeps of what was freed; the latter moves by tens of megabytes
without a trend. So growth compares what is *held*: freed pages are given back before it is read (glibc only, twice in a run).
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from ..memory import held, resident
from ..session.stream import Stream, StreamState
from ..types import FrameChunk, LatentChunk, Step

SETTLED = 3  # chunks after which every buffer exists
COMPARED = 100  # chunks at either end of a long run whose medians are compared


@dataclass(frozen=True)
class ChunkTime:
    """One chunk: seconds for its latents and for its frames, memory of the process afterwards."""

    frames: int
    denoising: float
    decoding: float
    memory: int  # bytes, resident

    @property
    def seconds(self) -> float:
        return self.denoising + self.decoding


@dataclass(frozen=True)
class Speed:
    """A measured run."""

    chunks: tuple[ChunkTime, ...]
    first_frame: float  # seconds from the start until the first frames were there, anchor included
    fps: float  # at which the stream plays
    held: tuple[int, int] | None = None  # bytes after chunk 3 and after the last, freed pages given back; None for a short run

    @property
    def frames_per_second(self) -> float:
        """Sustained: without the first chunk, which warms up."""
        rest = self.chunks[1:] or self.chunks
        return sum(c.frames for c in rest) / sum(c.seconds for c in rest)

    @property
    def times_real_time(self) -> float:
        return self.frames_per_second / self.fps

    @property
    def denoising(self) -> float:
        """Seconds that the generator takes for a chunk, median without the first."""
        return median(c.denoising for c in self.chunks[1:] or self.chunks)

    @property
    def denoised_per_second(self) -> float:
        """Frames that the generator alone draws."""
        return self.chunks[-1].frames / self.denoising

    @property
    def growth(self) -> int | None:
        """Bytes by which what the process holds grew between chunk 3 and the last; None for a run that is too short to say."""
        return self.held[1] - self.held[0] if self.held is not None else None

    @property
    def slowdown(self) -> float | None:
        """Median time of the last hundred chunks over that of the first hundred (settled ones); None when there are too few."""
        settled = [c.seconds for c in self.chunks[SETTLED:]]
        if len(settled) < 2 * COMPARED:
            return None
        return median(settled[-COMPARED:]) / median(settled[:COMPARED])

    def summary(self) -> str:
        decoding = median(c.decoding for c in self.chunks[1:] or self.chunks)
        lines = [
            f"{self.frames_per_second:.1f} frames a second ({self.times_real_time:.2f} x real time at {self.fps:g} fps), "
            f"first frame after {self.first_frame:.2f} s",
            f"a chunk: {self.denoising * 1000:.0f} ms to denoise, {decoding * 1000:.0f} ms to decode (medians of {len(self.chunks)})",
        ]
        if self.growth is not None:
            lines.append(
                f"memory held: {self.held[1] / 2**20:.0f} MiB, {self.growth / 2**20:+.1f} MiB since chunk {SETTLED} "
                f"({len(self.chunks)} chunks; "
                f"resident, with what the allocator keeps: {max(c.memory for c in self.chunks) / 2**20:.0f} MiB at most)"
            )
        if self.slowdown is not None:
            lines.append(f"time per chunk, last {COMPARED} over first {COMPARED}: {self.slowdown:.3f}")
        return "\n".join(lines)


def measure(stream: Stream, chunks: int, progress: Callable[[ChunkTime], object] = lambda time: None) -> Speed:
    """Run `stream` for some chunks and time it. The stream must be long enough; frames are thrown away."""
    times: list[ChunkTime] = []
    state = StreamState.start(stream)
    start = before = perf_counter()
    first_frame = drawn = decoded = 0.0
    frames = settled = 0
    for item in stream.steps(state):
        if isinstance(item, Step):
            continue  # the host goes on before the device is done, as in a stream that nobody times
        _wait_for(stream.model.device)
        now = perf_counter()
        if isinstance(item, LatentChunk):
            drawn, before = now - before, now
        elif isinstance(item, FrameChunk):
            decoded, before = decoded + now - before, now
            frames += item.span.length
            first_frame = first_frame or now - start
            if not state.is_whole:
                continue  # of the first chunk the first frame comes alone
            times.append(ChunkTime(frames, drawn, decoded, resident()))
            progress(times[-1])
            if len(times) == SETTLED:
                settled = held()
            if len(times) == chunks:
                break
            frames, decoded, before = 0, 0.0, perf_counter()
    return Speed(tuple(times), first_frame, stream.fps, (settled, held()) if len(times) > SETTLED else None)


def denoised_alternately(streams: Sequence[Stream], chunks: int) -> list[float]:
    """Median seconds that each stream takes to draw a settled chunk. They take turns, so what else the machine does meets all."""
    running = [stream.steps(StreamState.start(stream)) for stream in streams]
    seconds: list[list[float]] = [[] for _ in streams]
    for _ in range(SETTLED + chunks):
        for stream, items, times in zip(streams, running, seconds, strict=True):
            spent, before, item = 0.0, perf_counter(), None
            while not isinstance(item, LatentChunk):
                item = next(items)
                if isinstance(item, Step):
                    continue
                _wait_for(stream.model.device)
                now = perf_counter()
                spent += 0.0 if isinstance(item, FrameChunk) else now - before
                before = now
            times.append(spent)
    return [median(times[SETTLED:]) for times in seconds]


def computed_on(dtype: torch.dtype, device: torch.device) -> str:
    """In what precision, on what kind of device and on which machine, in a line: `bfloat16 on cuda, ...`."""
    return f"{str(dtype).removeprefix('torch.')} on {device.type}, {machine()}"


def machine() -> str:
    """This machine in a line: processor, threads, what it computes bfloat16 with, device, PyTorch."""
    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        name = next((line.split(":", 1)[1].strip() for line in facts.read_text().splitlines() if line.startswith("model name")), name)
    flags = [flag for flag, has in cpu_flags().items() if has]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {torch.get_num_threads()} threads, {' '.join(flags) or 'no AVX-512'}{gpu}, PyTorch {torch.__version__}"


def cpu_flags() -> dict[str, bool]:
    """The instruction sets that decide how fast a CPU computes in bfloat16."""
    return {
        "avx512": torch.cpu._is_avx512_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx": torch.cpu._is_amx_tile_supported(),
    }


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
