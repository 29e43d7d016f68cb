"""`python -m kf_core`: see `cli/main.py`. Here the process is ours, so here is decided how its threads wait for each other."""

import os

from .cli.main import main

# PyTorch's threads on Linux (GNU's OpenMP) spin for milliseconds where they wait for each other. Where another program has one of two
# cores, three quarters of the speed are lost by that. About as long as waking a thread takes is enough: docs/benchmarks.md.
SPINS = "1000"
DECIDED_BY = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> None:
    """Before PyTorch is loaded, since its runtime reads this once. What the user has set holds; other runtimes do not read it."""
    if not any(name in os.environ for name in DECIDED_BY):
        os.environ["GOMP_SPINCOUNT"] = SPINS


if __name__ == "__main__":
    wait_briefly()
    raise SystemExit(main())
