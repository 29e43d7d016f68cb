"""How a test that looks at many things says what is wrong: all of it, a line each."""

from collections.abc import Iterable


def listed(wrong: Iterable[str]) -> str:
    """For the message of an `assert`."""
    lines = list(wrong)
    return "\n".join((f"{len(lines)} wrong:", *lines))
