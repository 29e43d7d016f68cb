"""A louder voice: finished files take sound more strongly than it was trained, because the mouth of a regression opens too little.

The model is linear in what `audio_cond_projs` say of the sound, so the weights times a gain are that strength of the Audio node, told once
and for all. A run that begins with a finished file begins with what was trained. Measured in lab/docs/experiments.md, "A louder voice".
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from kf_core.checkpoints.read import read_header

VOICE_GAIN = 1.6  # opens the mouth as wide as the truth's
KEY = "voice_gain"  # of what a file says of its training; files of version 0.4 and before say nothing of it
VOICE = "audio_cond_projs."


def louder(weights: Mapping[str, Tensor], gain: float) -> dict[str, Tensor]:
    """The weights of a generator with its voice `gain` times as strong, in their own precision."""
    return {name: (w.float() * gain).to(w.dtype) if name.startswith(VOICE) else w for name, w in weights.items()}


def as_trained(file: Path) -> dict[str, Tensor]:
    """The weights of a finished generator without the gain it was written with."""
    gain = json.loads(read_header(file).metadata["training"]).get(KEY, 1.0)
    return louder(load_file(file), 1 / gain)
