"""The laboratory's commands: `python -m lab kf-tiny ...` trains, `python -m lab ablation|attention|mouth|drift DIR ...` measures."""

import argparse
import sys

from kf_core.errors import KnotForcingError

from .kf_tiny import command as kf_tiny
from .protocols import command as protocols


def main(words: list[str]) -> int:
    """Run a command; what it returns is the exit status."""
    if words and words[0] in protocols.TAKES:
        parser = argparse.ArgumentParser(prog="python -m lab", description=protocols.__doc__)
        protocols.add_arguments(parser)
        try:
            return protocols.run(parser.parse_args(words))
        except KnotForcingError as problem:
            print(problem, file=sys.stderr)
            return 1
    if words and words[0] in kf_tiny.WORDS:
        return kf_tiny.main(words)
    print(__doc__)
    for name, what in {"kf-tiny": "train the bundled model, or a stage of it: --help", **protocols.PROTOCOLS}.items():
        print(f"    {name:10} {what}")
    return 0 if words in ([], ["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
