"""Files damaged in every way we can think of: never a crash without a sentence, never code that runs, never memory without end.

Here a few of them; `mutations.py` says how thousands are made, and the soak test makes them.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits and fork")


def made(words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "tests.kf_core.checkpoints.mutations", *words.split()]
    return subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)


@pytest.mark.parametrize("words", ["150", "15 --first 1000 --fork", "2 --fresh"])
def test_a_damaged_file_ends_in_a_sentence(words):
    result = made(words)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]


@pytest.mark.soak
@pytest.mark.parametrize("words", ["10000", "200 --first 20000 --fresh"])
def test_thousands_of_damaged_files_end_in_sentences(words):
    result = made(words)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
