"""`plot`: the numbers of a long run as an image."""

import argparse
from pathlib import Path

from ..errors import KnotForcingError
from ..metrics.soak import LongRun
from ..outputs import refuse_outputs
from ..writing import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", type=Path, metavar="FILE", help="what bench --seconds ... --json FILE has written")
    parser.add_argument("image", type=Path, metavar="SVG", help="where the image goes")


def run(chosen: argparse.Namespace) -> int:
    refuse_outputs({"SVG": chosen.image}, {"FILE": chosen.numbers})
    try:
        long_run = LongRun.from_json(chosen.numbers.read_text(encoding="utf-8"))
    except OSError as problem:
        raise KnotForcingError(
            f"{chosen.numbers} cannot be read ({problem.strerror}). Give the file that bench --json has written."
        ) from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise KnotForcingError(
            f"{chosen.numbers} holds no long run. Make one: python -m kf_core bench --seconds 600 --json {chosen.numbers}"
        ) from problem
    write_text(chosen.image, long_run.svg())
    print(long_run.summary())
    return 0
