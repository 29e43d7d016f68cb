"""A 1.3-billion-parameter model from its file to one chunk and its knot, on the CPU: how much memory that takes.

    python -m tests.benchmarks.whole_model [--size 512] [--steps 4] [--threads N] [--load-only] [--keep FILE]

Writes a file of random bf16 weights in Self-Forcing's names, loads it as everybody does, and draws the first chunk under Knot Forcing
(three frames and the knot) with the anchor's pass before and the commit's after it, reading 512 empty words. Peaks are the system's own
count: what the process holds in all, and what of it is not a mapped file. Linux.
"""

import argparse
import dataclasses
import json
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from kf_core.checkpoints.known_models import self_forcing
from kf_core.checkpoints.load import load_generator
from kf_core.conditioning.anchor import Anchor
from kf_core.models.shapes import shapes_of
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.schedule import few_steps
from kf_core.types import ChunkConditioning, LatentChunk

KINDS = {torch.bfloat16: "BF16", torch.float16: "F16"}


class Idle:
    """Nothing drives it."""

    def window(self, span) -> ChunkConditioning:
        return ChunkConditioning(span=span)


def write(path: Path, shapes: Mapping[str, Sequence[int]], dtype: torch.dtype = torch.bfloat16, **last: bytes) -> None:
    """Random weights that neither grow nor fade, one tensor at a time; `last`: what else the file holds, as bytes."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = dtype.itemsize * torch.Size(shape).numel()
        header[name], end = {"dtype": KINDS[dtype], "shape": list(shape), "data_offsets": [end, end + size]}, end + size
    for name, data in last.items():
        header[name], end = {"dtype": "U8", "shape": [len(data)], "data_offsets": [end, end + len(data)]}, end + len(data)
    text = json.dumps(header).encode()
    draw = torch.Generator().manual_seed(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            inward = torch.Size(shape[1:]).numel()
            mean, scale = (1.0, 0.0) if "norm" in name and name.endswith("weight") else (0.0, inward**-0.5 if len(shape) > 1 else 0.02)
            tensor = (torch.randn(tuple(shape), generator=draw) * scale + mean).to(dtype)
            file.write(tensor.view(torch.uint8).numpy().tobytes())
        for data in last.values():
            file.write(data)


def held() -> dict[str, float]:
    """Gigabytes (10^9): the peak of all, and what is held now apart from files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 / 1e9 for name in ("VmHWM", "RssAnon")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--load-only", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the weights here, or take them from here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = chosen.keep or Path(folder) / "self_forcing_dmd.safetensors"
        if not path.exists():
            write(path, shapes_of(self_forcing()))
        began, before = time.perf_counter(), held()
        model = load_generator(path, known_as="self-forcing", dtype=torch.bfloat16)
        seconds, after = time.perf_counter() - began, held()
        print(f"file {path.stat().st_size / 1e9:.2f} GB; peak before loading {before['VmHWM']:.2f} GB")
        print(f"loaded in {seconds:.0f} s: peak {after['VmHWM']:.2f} GB, held {after['RssAnon']:.2f} GB", flush=True)
        if chosen.load_only:
            return
        settings = dataclasses.replace(model.card.under_knot_forcing(), schedule=few_steps(chosen.steps))
        side = chosen.size // 8
        anchor = Anchor(torch.randn(1, 16, 1, side, side, generator=torch.Generator().manual_seed(1)))
        began = time.perf_counter()
        for item in rollout(model, anchor, Idle(), settings, SeededNoise(0, (1, 16, side, side))):
            now = held()
            done = f"after {time.perf_counter() - began:.0f} s: peak {now['VmHWM']:.2f} GB, held {now['RssAnon']:.2f} GB"
            if isinstance(item, LatentChunk):
                print(f"chunk of {item.span.length} frames and a knot at {chosen.size}x{chosen.size} {done}")
                print(f"latents finite: {bool(item.latents.isfinite().all())}, spread {item.latents.std():.2f}")
                return
            print(f"step {item.index + 1} of {item.total} {done}", flush=True)


if __name__ == "__main__":
    main()
