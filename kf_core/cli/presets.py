"""`presets`: what each preset decides for a model of 1.3 billion weights, and how much of a card that needs; a table, computed."""

import argparse

import torch

from ..metrics.random_model import PRESETS as MODELS
from ..planning.memory import DecoderKind
from ..planning.presets import GIB, PRESETS, TINY, plan, usable

SIZES = ((512, 512), (832, 480))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=MODELS, default="wan-1.3b", help="sizes of the model (default: wan-1.3b)")


def run(chosen: argparse.Namespace) -> int:
    model = MODELS[chosen.model]
    words = dict(device=torch.device("cpu"), dtype=torch.bfloat16)
    print("| preset | usable, GiB | size | decoder at hand | what is decided | needed, GiB |\n|---|---:|---|---|---|---:|")
    for name, memory in PRESETS.items():
        for width, height in SIZES:
            for decoder, said in ((DecoderKind(dim=model.vae_dim), "VAE"), (TINY, "tiny")):
                found = plan(name, model.card, model.card.rollout, width=width, height=height, decoders=(decoder,), **words)
                decided = found.decode_plan.describe() if found.fits else "too large"
                print(f"| {name} | {usable(memory) / GIB:.1f} | {width}x{height} | {said} | {decided} | {found.needed / GIB:.1f} |")
    return 0
