"""The command that is printed can be given again, in the shell of the system it was printed on."""

import shlex
from types import SimpleNamespace

import pytest

from kf_core.cli import animate, words
from kf_core.cli.words import shell_line

WORDS = ["animate", "--portrait", "my face.png", "--script", "[00:10-00:20] smile, nod", "--out", "talk.mp4"]


@pytest.fixture
def on(monkeypatch):
    """The system that commands are printed on."""
    return lambda name: monkeypatch.setattr(words, "os", SimpleNamespace(name=name))


def test_a_line_is_taken_apart_into_the_same_words(on):
    on("posix")
    assert shlex.split(shell_line(WORDS)) == WORDS


def test_on_windows_words_stand_in_double_quotes_because_its_shell_knows_no_others(on):
    on("nt")
    line = shell_line(["--portrait", r"C:\My frames\me.png", "--prompt", "it's me"])
    assert line == r'''--portrait "C:\My frames\me.png" --prompt "it's me"'''


def test_the_command_that_goes_on_with_a_video_is_the_one_that_was_given(on):
    for name, quote in (("posix", "'"), ("nt", '"')):
        on(name)
        line = animate._command(["kf_core", *WORDS, "--overwrite"])
        assert f"--portrait {quote}my face.png{quote} " in line and line.endswith("--out talk.mp4 --resume") and "--overwrite" not in line
