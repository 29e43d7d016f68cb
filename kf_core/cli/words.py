"""The words of a command: which options were given, which of them are refused where they say nothing, and how a shell reads them again."""

import argparse
import os
import shlex
import subprocess
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import KnotForcingError


def given(chosen: argparse.Namespace, add_arguments: Callable[[argparse.ArgumentParser], None]) -> dict[str, Any]:
    """The options that are not as they are by default, in the order in which the help shows them."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    usual = vars(parser.parse_args([]))
    return {name: getattr(chosen, name) for name in usual if getattr(chosen, name) != usual[name]}


def refuse(names: Iterable[str], unused: Collection[str], why: str) -> None:
    """Raises KnotForcingError where some of `names` are `unused`. `why`: how the sentence goes on after them, and what to do."""
    if found := [option(name) for name in names if name in unused]:
        raise KnotForcingError(f"{', '.join(found)}: {why}")


def option(name: str) -> str:
    """As it is typed."""
    return f"--{name.replace('_', '-')}"


def typed(name: str, value: Any) -> list[str]:
    """An option with its value, as they are typed; of files the names alone."""
    values = [] if value is True else value if isinstance(value, list) else [value]

    def plain(one):
        return one.name if isinstance(one, Path) else f"{one:g}" if isinstance(one, float) else str(one)

    return [option(name), *(plain(one) for one in values)]


def shell_line(words: Sequence[str]) -> str:
    """A line that the shell of this system takes apart into these words: cmd.exe knows no single quotes."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
