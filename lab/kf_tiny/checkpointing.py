"""What a run leaves on the way, so that one that is cut off has not run for nothing: when it saves, and the generator's file so far.

A generator's file is written here alone, on the way and by the stage `files`: the running mean in float16, its voice louder, its card
and what is known of its training in the header.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from kf_core.models.card import CARD_KEY, ModelCard

from .audio_gain import KEY, VOICE_GAIN, louder
from .batches import LAYOUTS

SECONDS_BETWEEN_SAVES = (15, 120)  # at least and at most; between them a tenth of the budget


def seconds_between_saves(budget: float) -> float:
    """How much of its budget of seconds a run may lose when it is killed."""
    least, most = SECONDS_BETWEEN_SAVES
    return min(most, max(least, budget / 10))


def so_far(file: str) -> str:
    """Under which name a run's folder holds what will once be `file`."""
    return f"{Path(file).stem}-so-far{Path(file).suffix}"


def in_file(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a generator as its file holds them."""
    return {name: weight.half().contiguous().cpu() for name, weight in louder(weights, VOICE_GAIN).items()}


def write_generator(file: Path, weights: Mapping[str, Tensor], card: ModelCard, about: dict) -> dict:
    """A file that is whole or not there at all; `weights` as `in_file` made them. Returns all that its header says of the training."""
    about = {"commit": commit(), "layouts": LAYOUTS, **about, KEY: VOICE_GAIN}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    save_file(dict(weights), unfinished, metadata={"format": "pt", CARD_KEY: card.to_json(), "training": json.dumps(about)})
    os.replace(unfinished, file)
    return about


def commit() -> str:
    """Which commit this is trained at, or `unknown` outside a checkout and where there is no git."""
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
