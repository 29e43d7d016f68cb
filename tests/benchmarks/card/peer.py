"""Ours against the public Self-Forcing pipeline on the same device: same weights, sizes, steps and numbers; `peers.py` runs both.

At the pipeline's own span (every frame remembered, at its last chunk), at a window of 6 for both, and ours as Knot Forcing has it.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from kf_core.metrics.random_model import random_generator
from kf_core.metrics.speed import denoised_alternately
from kf_core.session.stream import Stream
from kf_core.vae.wan import SPATIAL_STRIDE

from ..against_peers import EVERY, KNOT_FORCING, SIX, agreement, contestants, table, times
from ..peers import Setting
from .workbench import Workbench


@torch.no_grad()
def against_the_public_pipeline(folder: Path, at: Workbench, fastest: Stream, progress: Callable[[object], object]) -> dict:
    """Seconds per chunk of all; `fastest`: ours as it was measured to be fastest, over settled chunks."""
    scale, device = at.scale, at.device
    width, height = scale.wide
    card = replace(fastest.model.card, in_channels=16, rollout=KNOT_FORCING)
    modules = random_generator(card, dtype=at.dtype, device=device).modules
    size = (height // SPATIAL_STRIDE, width // SPATIAL_STRIDE)
    setting = Setting(card, modules, size, lambda: _now(device), device, at.dtype)
    chosen = argparse.Namespace(
        comfyui=None, self_forcing=folder, growing_until=10**9, at=[scale.peers_at], repeats=1, chunks=scale.peers_chunks
    )
    everyone = contestants(setting, chosen)
    for _ in range(scale.peers_repeats):
        times(everyone, chosen)
        progress(everyone)
    (quickest,) = denoised_alternately([fastest], scale.peers_repeats * scale.peers_chunks)

    def seconds(name, span):
        return median(next(one for one in everyone if (one.name, one.span) == (name, span)).seconds[scale.peers_at])

    theirs = "Self-Forcing pipeline"
    return {
        "at": scale.peers_at,
        "seconds": {f"{one.name} | {one.span}": one.seconds[scale.peers_at] for one in everyone},
        "ours_fastest": quickest,
        "own_span": seconds(theirs, EVERY) / quickest,
        "equal_span": {
            EVERY: seconds(theirs, EVERY) / seconds("ours, optimized forward", EVERY),
            SIX: seconds(theirs, SIX) / seconds("ours, optimized forward", SIX),
        },
        "table": table(everyone, [scale.peers_at]),
        "agreement": agreement(everyone),
    }


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
