"""The commands, their help, and how they end: 0 done, 1 a sentence about what to put right, 2 a word mistyped, 130 stopped by Ctrl-C.

What is made counts, not what can be said of it: where the terminal has gone, a whole film is a good end all the same.

Each command's file adds its own arguments and is loaded when it is called, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .. import __version__
from ..errors import KnotForcingError
from ..writing import why
from .terminal import forgiving

COMMANDS = {
    "animate": "make a portrait talk: portrait and voice become a video",
    "inspect": "say what a model file or a video is",
    "evaluate": "measure a video: flicker, seams, lip sync, identity, drift",
    "bench": "measure how fast this machine makes video, and whether memory stays flat",
    "presets": "say what the presets for cards of 8 to 24 GB decide",
    "plot": "draw the numbers of a long run of bench as an image",
}
MAKE_FILES = {"animate", "plot"}  # what the others make is what they say, and may be in a file as well
STOPPED = 130
NO_MEMORY = ("out of memory", "can't allocate memory")  # what PyTorch says
EPILOG = """examples
  python -m kf_core animate --portrait me.png --audio voice.mp3 --out talk.mp4
  python -m kf_core animate --portrait me.png --audio voice.mp3 --out talk.mp4 --resume
  python -m kf_core animate --help"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{message}. See: {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what it returns is the exit status."""
    with forgiving() as out:
        try:
            status, has_file = _run(arguments)
        except KeyboardInterrupt:  # also while PyTorch is still being loaded
            print("Stopped.", file=sys.stderr)
            return STOPPED
        out.flush()
        if status == 0 and out.lost is not None and not has_file and not isinstance(out.lost, BrokenPipeError):
            print(f"The answer could not be written ({getattr(out.lost, 'strerror', None) or out.lost}).", file=sys.stderr)
            return 1
        return status


def _run(arguments: Sequence[str] | None) -> tuple[int, bool]:
    """The exit status, and whether what was made is in a file, and not only in what was said."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    form = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="python -m kf_core", description="Knot Forcing: endless talking portraits.", epilog=EPILOG, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"Knot Forcing {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=_Parser)
    called = next((word for word in given if word in COMMANDS), None)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", formatter_class=form)
        if name == called:
            import_module(f".{name}", __package__).add_arguments(command)
    chosen = parser.parse_args(given)
    has_file = chosen.command in MAKE_FILES or getattr(chosen, "json", None) is not None
    try:
        return import_module(f".{chosen.command}", __package__).run(chosen), has_file
    except KnotForcingError as problem:
        print(problem, file=sys.stderr)
        return 1, has_file
    except OSError as problem:
        name = problem.filename if isinstance(problem.filename, str | bytes) else None
        found, remedy = why(problem, None if name is None else Path(os.fsdecode(name)))
        print(f"{'A file that is needed' if name is None else os.fsdecode(name)} cannot be used: {found}. {remedy}.", file=sys.stderr)
        return 1, has_file
    except (MemoryError, RuntimeError) as problem:
        if isinstance(problem, RuntimeError) and not any(words in str(problem) for words in NO_MEMORY):
            raise
        print("There is not enough memory. Close other programs, or ask for a smaller --width and --height.", file=sys.stderr)
        return 1, has_file
