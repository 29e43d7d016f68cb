"""`bench --seconds`: one long run in one process, every chunk's time and memory, with or without writing the video."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..conditioning.audio import Silence
from ..errors import KnotForcingError
from ..metrics.chunk_timing import laps
from ..metrics.soak import LongRun, follow
from ..metrics.speed import machine
from ..models.optimized_forward import OptimizedGenerator
from ..planning.presets import Plan
from ..session.executor import InlineExecutor
from ..session.sinks.video_file import VideoFile
from ..session.stream import Stream
from ..types import FrameChunk, LatentChunk, Step
from ..vae.wan import SPATIAL_STRIDE
from ..writing import beside
from . import model as model_arguments
from .words import shell_line

HELD_EVERY = 12  # chunks from one reading of what is held to the next; each takes some milliseconds


def run(chosen: argparse.Namespace, endless: Stream, tuning: Plan) -> LongRun:
    """Make so many seconds of it, say how it went, and keep the numbers. Ctrl-C ends it with what there is."""
    if not chosen.seconds > 0:
        raise KnotForcingError(f"A run of {chosen.seconds:g} s shows nothing. Give --seconds more than 0: 3600 is an hour.")
    stream = replace(endless, seconds=chosen.seconds, driving=replace(endless.driving, audio=Silence(chosen.seconds)))
    height, width = (side * SPATIAL_STRIDE for side in stream.anchor.latent.shape[-2:])
    with model_arguments.worker(chosen, stream, tuning) as worker:
        order = "in turn" if isinstance(worker, InlineExecutor) else "beside the denoising"
    how = "" if isinstance(stream.model, OptimizedGenerator) else ", by the plain forward"
    facts = {
        "model": f"{stream.model.card.name}, {width}x{height}, {str(stream.model.dtype).removeprefix('torch.')}{how}",
        "frames": f"made {order}, {'written to an MP4' if chosen.film else 'thrown away'}",
        "machine": f"{machine()}, {date.today():%d %B %Y}",
        "command": shell_line(["python", "-m", "kf_core", *sys.argv[1:]]),
    }
    with closing(_items(chosen, stream, tuning)) as items, tqdm(total=stream.num_frames, unit=" frames", file=sys.stderr) as bar:
        made = follow(laps(items, HELD_EVERY), facts, stream.fps, lambda lap: bar.update(lap.frames))
    print(made.summary())
    return made


def _items(chosen: argparse.Namespace, stream: Stream, tuning: Plan) -> Iterator[Step | LatentChunk | FrameChunk]:
    worker = partial(model_arguments.worker, chosen, stream, tuning)
    if chosen.film is not None:
        film = VideoFile(stream=stream, path=chosen.film, state_file=state_of(chosen.film), worker=worker, replaces=True)
        film.discard()  # what a run that was killed had denoised must be denoised again
        yield from film.record()
    else:
        with worker() as someone:
            yield from stream.steps(worker=someone)


def state_of(film: Path) -> Path:
    return beside(film, ".resume")
