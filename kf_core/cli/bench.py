"""`bench`: how fast this machine makes video, in each precision, and whether time and memory stay flat."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from ..checkpoints.load import fast_dtype
from ..conditioning.anchor import Anchor
from ..conditioning.audio import Silence
from ..conditioning.driving import Driving
from ..evaluation.speed import Speed, machine, measure
from ..stream import Stream
from ..vae.streaming import encode_clip
from . import model as model_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=int, default=20, metavar="N", help="chunks to make; 2000 show whether it stays flat (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every chunk's numbers here")
    model_arguments.add_arguments(parser)


def run(chosen: argparse.Namespace) -> int:
    results = {}
    for precision in _precisions(chosen):
        speed = _measured(chosen, precision)
        print(f"{precision}: {speed.summary()}")
        results[precision] = dataclasses.asdict(speed)
    print(machine())
    if chosen.json is not None:
        chosen.json.write_text(json.dumps({"machine": machine(), **results}) + "\n", encoding="utf-8")
    return 0


def _precisions(chosen: argparse.Namespace) -> list[str]:
    """The one that was asked for; else what `animate` would take, and fp32 beside it."""
    if chosen.precision != "auto":
        return [chosen.precision]
    fast = {dtype: name for name, dtype in model_arguments.PRECISIONS.items()}[fast_dtype(chosen.device)]
    return list(dict.fromkeys((fast, "fp32")))


def _measured(chosen: argparse.Namespace, precision: str) -> Speed:
    loaded = model_arguments.load_model(argparse.Namespace(**{**vars(chosen), "precision": precision}))
    grey = torch.full((1, 3, 1, loaded.height, loaded.width), 0.5, device=loaded.generator.device)
    stream = Stream(
        model=loaded.generator,
        decoder=loaded.decoder,
        anchor=Anchor(encode_clip(loaded.vae, grey)),
        driving=Driving(audio=Silence()),
        settings=loaded.settings,
        audio_encoder=loaded.audio_encoder,
    )
    with tqdm(total=chosen.chunks, unit=" chunks", desc=precision, file=sys.stderr) as bar:
        return measure(stream, chosen.chunks, lambda _: bar.update())
