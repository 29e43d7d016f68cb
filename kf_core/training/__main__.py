"""Train the bundled model from nothing: `python -m kf_core.training kf-tiny` draws, speaks, learns and writes the files.

Every stage goes on where it was killed; a stage alone can be run by its name, one beside another where that makes sense
(clips while the student already learns on the first of them).
"""

import argparse
import sys
from pathlib import Path

import torch

from ..errors import KnotForcingError
from .recipes import KfTiny

STAGES = ("vae", "clips", "ear", "student", "teacher", "rollouts", "files", "measures")  # in order; `examples` is not part of the training


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kf_core.training", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "what",
        choices=("kf-tiny", *STAGES, "small-decoder", "examples"),
        help="everything, or one stage of it; examples: the bundled portrait and voice",
    )
    parser.add_argument("--run", type=Path, default=Path("runs/kf-tiny"), help="folder for clips and checkpoints")
    parser.add_argument("--size", type=int, default=128, help="pictures are this many pixels high and wide; a multiple of 16")
    parser.add_argument("--vae-minutes", type=float, default=65)
    parser.add_argument("--small-decoder-minutes", type=float, default=40, help="of the decoder of half the width, for `small-decoder`")
    parser.add_argument("--clips", type=int, default=1000, help="training clips to make")
    parser.add_argument("--ear-minutes", type=float, default=8, help="of the ear, which is trained on speech alone")
    parser.add_argument("--student-minutes", type=float, default=55)
    parser.add_argument("--teacher-minutes", type=float, default=25, help="of the teacher to which streams without a pose are matched")
    parser.add_argument("--rollout-minutes", type=float, default=20)
    parser.add_argument("--batch", type=int, default=8, help="samples per step of the student")
    parser.add_argument(
        "--grow-from", type=Path, default=None, help="a folder with kf-tiny.safetensors and kf-tiny-vae.safetensors to begin with"
    )
    parser.add_argument("--pictures-scale", type=float, default=1.0, help="so many times as many pictures per step of the autoencoder")
    parser.add_argument("--workers", type=int, default=0, help="further processes that make clips")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="where the finished files go; by default the pack's assets")
    arguments = vars(parser.parse_args())
    what = arguments.pop("what")
    torch.set_num_threads(arguments["threads"])
    stages = KfTiny(**arguments).stages
    try:
        for stage in stages if what == "kf-tiny" else (what,):
            stages[stage]()
    except KnotForcingError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
