"""What comes of a file of weights: looked at by its header, then loaded. A sentence is an end as good as any; anything else is raised.

python -m tests.kf_core.checkpoints.outcome FILE WORDS      # in a process of its own; WORDS as JSON; the answer, and the most memory held
"""

import json
import sys
from pathlib import Path
from typing import Literal

from kf_core.checkpoints.checkpoint import identify
from kf_core.errors import KnotForcingError

Outcome = Literal["loaded", "refused"]


def outcome(path: Path, words: dict) -> Outcome:
    """Raises whatever is no sentence."""
    said = [sentence for deed in (_look, _load) if (sentence := deed(path, words))]
    return "refused" if said else "loaded"


def _look(path: Path, words: dict) -> str:
    return _sentence(lambda: identify(path, **words))


def _load(path: Path, words: dict) -> str:
    import torch

    from kf_core.checkpoints.load import load_generator

    torch.set_num_threads(1)
    return _sentence(lambda: load_generator(path, **words, accept_licence=True, dtype=torch.float32))


def _sentence(deed) -> str:
    """What a refusal says; empty where nothing was refused."""
    try:
        deed()
    except KnotForcingError as problem:
        said = str(problem)
        if "\n" in said or len(said) < 20:
            raise ValueError(f"no sentence: {said!r}") from problem
        return said
    return ""


if __name__ == "__main__":
    came = outcome(Path(sys.argv[1]), json.loads(sys.argv[2]))
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(came, int(peak.split()[1]) * 1024)
