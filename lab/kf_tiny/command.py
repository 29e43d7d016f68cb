"""Train the bundled model from nothing: `python -m lab kf-tiny` draws, speaks, learns and writes the files.

Every stage goes on where it was killed; a stage alone can be run by its name, one beside another where that makes sense
(clips while the student already learns on the first of them). While a stage trains, the run's folder holds what its running mean is
worth so far, written as a finished file is: kf-tiny-vae-so-far, kf-tiny-student-so-far, kf-tiny-rollouts-so-far.

Within ten minutes of a GPU, from a finished model:

    kf-tiny --minutes 10 --grow-from kf_core/assets --device cuda --workers 8 --batch 32 --clips 3000 --run RUN --out OUT

makes clips, trains the student and its own rollouts on them and writes the files; autoencoder and ear stay as they are, and there is no
teacher. Clips end after their share of the time. With the autoencoder first, here for four of the ten minutes:

    kf-tiny --minutes 10 --vae-minutes 4 --frames-scale 4 --grow-from kf_core/assets --device cuda ...

The stage `speech` writes what the clips say into RUN; a machine that is given those two files needs no espeak-ng. A small decoder for a
new autoencoder is a stage by itself: small-decoder --small-decoder-minutes 2 --grow-from kf_core/assets --device cuda --run RUN.
"""

import argparse
import sys
from pathlib import Path

import torch

from kf_core.errors import KnotForcingError

from .budget import run_within
from .recipes import KfTiny

STAGES = ("vae", "clips", "ear", "student", "teacher", "rollouts", "files", "measures")  # in order; `examples` is not part of the training
WORDS = ("kf-tiny", *STAGES, "speech", "small-decoder", "examples")
MINUTES = {"vae": 65.0, "ear": 8.0, "student": 55.0, "teacher": 25.0, "rollout": 20.0}  # where they are not told, on one CPU thread


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "what",
        choices=WORDS,
        help="everything, or one stage of it; examples: the bundled portrait and voice",
    )
    parser.add_argument("--run", type=Path, default=Path("runs/kf-tiny"), help="folder for clips and checkpoints")
    parser.add_argument("--size", type=int, default=128, help="frames are this many pixels high and wide; a multiple of 16")
    parser.add_argument(
        "--minutes", type=float, help="for `kf-tiny` with --grow-from: all stages but the measures, within so many minutes of the clock"
    )
    parser.add_argument("--vae-minutes", type=float, help=f"{MINUTES['vae']:g}; 0 with --grow-from: that autoencoder stays as it is")
    parser.add_argument("--small-decoder-minutes", type=float, default=40, help="of the decoder of half the width, for `small-decoder`")
    parser.add_argument("--clips", type=int, default=1000, help="training clips to make")
    parser.add_argument("--clip-minutes", type=float, default=float("inf"), help="after which no more training clips are made")
    parser.add_argument("--speech-minutes", type=float, default=60, help="of what the training clips say")
    parser.add_argument("--ear-minutes", type=float, help=f"{MINUTES['ear']:g}; it is trained on speech alone; 0 with --grow-from: its ear")
    parser.add_argument("--student-minutes", type=float, help=f"{MINUTES['student']:g}")
    parser.add_argument(
        "--teacher-minutes", type=float, help=f"{MINUTES['teacher']:g}; streams without a pose are matched to the teacher; 0: to none"
    )
    parser.add_argument("--rollout-minutes", type=float, help=f"{MINUTES['rollout']:g}")
    parser.add_argument("--batch", type=int, default=8, help="samples per step of the student")
    parser.add_argument(
        "--grow-from", type=Path, default=None, help="a folder with kf-tiny.safetensors and kf-tiny-vae.safetensors to begin with"
    )
    parser.add_argument("--frames-scale", type=float, default=1.0, help="so many times as many frames per step of the autoencoder")
    parser.add_argument("--workers", type=int, default=0, help="further processes that make clips")
    parser.add_argument("--device", default="cpu", help="where it trains and measures: cpu, cuda, ..")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="where the finished files go; by default the pack's assets")
    arguments = vars(parser.parse_args(words))
    what = arguments.pop("what")
    minutes = arguments.pop("minutes")
    for stage, usual in MINUTES.items():
        if arguments[f"{stage}_minutes"] is None:
            arguments[f"{stage}_minutes"] = usual if minutes is None else 0.0
    torch.set_num_threads(arguments["threads"])
    recipe = KfTiny(**arguments)
    try:
        if minutes is None:
            for stage in recipe.stages if what == "kf-tiny" else (what,):
                recipe.stages[stage]()
        elif what != "kf-tiny" or recipe.grow_from is None:
            raise KnotForcingError("--minutes are for a whole run that begins with a finished model: kf-tiny --grow-from FOLDER.")
        else:
            run_within(recipe, minutes)
    except KnotForcingError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0
