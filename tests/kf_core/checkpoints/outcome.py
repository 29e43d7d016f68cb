"""What comes of a file of weights: looked at by its header, then loaded. A sentence is an end as good as any; anything else is raised.

python -m tests.kf_core.checkpoints.outcome FILE WORDS      # in a process of its own, limited; WORDS as JSON; the answer
"""

import importlib
import json
import resource
import sys
from pathlib import Path
from typing import Literal

from kf_core.checkpoints.checkpoint import identify
from kf_core.errors import KnotForcingError

Outcome = Literal["loaded", "refused"]
SPARE = 600_000_000  # bytes of address space beyond what a process has when PyTorch is there: enough for small files, however many


def outcome(path: Path, words: dict) -> Outcome:
    """Raises whatever is no sentence."""
    said = [sentence for task in (_look, _load) if (sentence := task(path, words))]
    return "refused" if said else "loaded"


def _look(path: Path, words: dict) -> str:
    return _sentence(lambda: identify(path, **words))


def _load(path: Path, words: dict) -> str:
    import torch

    from kf_core.checkpoints.load import load_generator

    torch.set_num_threads(1)
    return _sentence(lambda: load_generator(path, **words, accept_licence=True, dtype=torch.float32))


def limit_memory(spare: int) -> None:
    """From now on this process gets so much more address space. A limit, and no look at memory: what it takes differs by machine."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + spare, has + spare))


def _sentence(task) -> str:
    """What a refusal says; empty where nothing was refused."""
    try:
        task()
    except KnotForcingError as problem:
        said = str(problem)
        if "\n" in said or len(said) < 20:
            raise ValueError(f"no sentence: {said!r}") from problem
        return said
    return ""


if __name__ == "__main__":
    path, words = Path(sys.argv[1]), json.loads(sys.argv[2])
    _look(path, words)  # before there is PyTorch
    importlib.import_module("kf_core.checkpoints.load")
    limit_memory(SPARE)
    print(outcome(path, words))
