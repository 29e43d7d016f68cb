"""The parts of the benchmark, in order of worth: each measures one thing and says it in numbers that JSON can hold.

What it times is a stream as everybody runs it; `bench` and `kf_core/evaluation` do the timing.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from kf_core.cli import bench
from kf_core.conditioning.audio import Silence
from kf_core.media.playback import probe
from kf_core.metrics.chunk_timing import Lap, frames_per_second, laps
from kf_core.metrics.memory_probe import held_after_chunks, last_change
from kf_core.metrics.parity import difference, first_latents
from kf_core.metrics.profile import profiled
from kf_core.metrics.speed import measure
from kf_core.session.sinks.video_file import VideoFile
from kf_core.timeline import pixel_frames

from .peer import against_the_public_pipeline
from .workbench import ENOUGH, Accelerators, Workbench

Progress = Callable[[object], object]  # called after each chunk
FILM, FIRST, PEER, MEMORY, PROFILE = "film", "first frame", "public pipeline", "memory", "profile"


@dataclass(frozen=True)
class Part:
    """One thing that is measured. `measure` is given the workbench, what was found so far, and whom to tell of each chunk."""

    name: str
    measure: Callable[[Workbench, dict, Progress], dict]


def parts(self_forcing: Path | None) -> list[Part]:
    """All of them. `self_forcing`: the folder of the public pipeline; None: without it."""
    found = [Part(wide(names), partial(drawing, names, "wide")) for names in bench.EACH]
    found += [Part(FILM, film), Part(FIRST, first_frame), Part(square("fastest"), fastest_square)]
    found += [Part(PEER, partial(peer, self_forcing))] if self_forcing is not None else []
    found += [Part(MEMORY, memory), Part(PROFILE, profile)]
    return found


def said(names: Accelerators) -> str:
    return " ".join(names) or "optimized forward"


def wide(names: Accelerators) -> str:
    return f"wide, {said(names)}"


def square(way: str) -> str:
    return f"square, {way}"


def fastest(found: dict) -> Accelerators:
    """Of the ways to denoise, the fastest that was measured."""
    measured = [names for names in bench.EACH if wide(names) in found]
    return min(measured, key=lambda names: found[wide(names)]["denoising"], default=())


def drawing(names: Accelerators, shape: str, at: Workbench, found: dict, progress: Progress) -> dict:
    """Frames a second that the generator draws so, and how far they are from the plain forward's."""
    at.keep_only((), fastest(found), names)
    size = getattr(at.scale, shape)
    stream, exact = at.stream(names, size), at.exact(size)
    off = difference(first_latents(stream, ENOUGH), exact)  # first: what is compiled or captured is that now
    speed = measure(stream, at.scale.denoised, progress)
    settled = [chunk.denoising for chunk in speed.chunks[1:]]
    limit = bench.limit(stream, speed)
    return {
        "accelerators": list(names),
        "size": list(size),
        "denoised_per_second": speed.denoised_per_second,
        "denoising": speed.denoising,
        "least": min(settled),
        "most": max(settled),
        "decoding": median(chunk.decoding for chunk in speed.chunks[1:]),
        "first_frame": speed.first_frame,
        "of_limit": limit["least_seconds"] / speed.denoising,
        "limit": limit,
        "difference": off,
        "peak": _peak(at),
    }


def fastest_square(at: Workbench, found: dict, progress: Progress) -> dict:
    return drawing(fastest(found), "square", at, found, progress)


def film(at: Workbench, found: dict, progress: Progress) -> dict:
    """Frames a second from noise to a file that plays, decoded by the tiny decoder and written beside the drawing."""
    stream = _settled(at, found)
    frames = pixel_frames(stream.settings.output_span(at.scale.film - 1).stop)
    seconds = frames / stream.fps
    stream = replace(stream, seconds=seconds, driving=replace(stream.driving, audio=Silence(seconds)))
    run: list[Lap] = []
    with TemporaryDirectory() as folder:
        worker = partial(bench.model_arguments.worker, at.chosen, stream)
        made = VideoFile(stream=stream, path=Path(folder) / "film.mp4", state_file=Path(folder) / "film.resume", worker=worker)
        with closing(made.record()) as items:
            for lap in laps(items):
                run.append(lap)
                progress(lap)
        file, size = probe(made.path), made.path.stat().st_size
    tenth = max(1, len(run) // 10)
    return {
        "accelerators": list(fastest(found)),
        "size": list(at.scale.wide),
        "chunks": at.scale.film,
        "frames_per_second": frames_per_second(run),
        "last_tenth": sum(lap.frames for lap in run[-tenth:]) / sum(lap.seconds for lap in run[-tenth:]),
        "frames": file.frames,
        "wanted": frames,
        "bytes": size,
        "waiting": max(lap.waiting for lap in run),
        "peak": _peak(at),
    }


def first_frame(at: Workbench, found: dict, progress: Progress) -> dict:
    """Seconds from nothing drawn to the first frame, of new streams of a model that is warm: the anchor's pass and the prompt's keys
    are in it, encoding them is not."""
    stream = _settled(at, found)
    seconds = [measure(stream, 1, progress).first_frame for _ in range(at.scale.firsts)]
    return {"accelerators": list(fastest(found)), "size": list(at.scale.wide), "seconds": seconds, "median": median(seconds)}


def peer(folder: Path, at: Workbench, found: dict, progress: Progress) -> dict:
    """Against the public Self-Forcing pipeline, in this call; ours also as fast as it was measured."""
    at.keep_only(fastest(found))
    return against_the_public_pipeline(folder, at, _settled(at, found), progress) | {"accelerators": list(fastest(found))}


def memory(at: Workbench, found: dict, progress: Progress) -> dict:
    """Bytes that are held after each chunk, and the chunk after which they last changed."""
    held = held_after_chunks(_settled(at, found), at.scale.held, progress)
    is_card = at.device.type == "cuda"
    return {"held": held, "last_change": last_change(held), "weights_included": is_card, "accelerators": list(fastest(found))}


def profile(at: Workbench, found: dict, progress: Progress) -> dict:
    """What the device runs in a chunk, drawn and decoded in turn."""
    seen = profiled(_settled(at, found), at.scale.profiled)
    return {
        "accelerators": list(fastest(found)),
        "kinds": seen.kinds(),
        "table": seen.table(),
        **asdict(replace(seen, kernels=seen.kernels[:40])),
    }


def _settled(at: Workbench, found: dict):
    """The fastest exact stream, warm: drawn until its window was full."""
    at.keep_only((), fastest(found))
    stream = at.stream(fastest(found), at.scale.wide)
    first_latents(stream, ENOUGH)
    if at.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(at.device)
    return stream


def _peak(at: Workbench) -> int | None:
    """The most bytes of tensors at a time on a card since it was last asked; None on a CPU."""
    if at.device.type != "cuda":
        return None
    most = torch.cuda.max_memory_allocated(at.device)
    torch.cuda.reset_peak_memory_stats(at.device)
    return most
