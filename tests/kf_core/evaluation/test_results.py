"""Results that several processes write into one folder."""

import subprocess
import sys

import pytest

from kf_core.errors import KnotForcingError
from kf_core.evaluation.results import Results, claim

CLAIM_OFTEN = """
import pathlib, sys
from kf_core.evaluation.results import claim
for _ in range(2000):
    claim(pathlib.Path(sys.argv[1]), "w")
"""


def test_processes_that_begin_at_the_same_moment_take_the_same_folder(tmp_path):
    running = [subprocess.Popen([sys.executable, "-c", CLAIM_OFTEN, str(tmp_path)], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]


def test_a_folder_of_other_weights_is_refused_and_left_as_it_was(tmp_path):
    claim(tmp_path, "mine")
    with pytest.raises(KnotForcingError, match=r"other weights \(mine; these are yours\)"):
        claim(tmp_path, "yours")
    claim(tmp_path, "mine")


def test_a_line_that_was_cut_off_does_not_count_and_swallows_nothing(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append([{"seed": 1}])
    with results.path.open("a", encoding="utf-8") as file:
        file.write('{"seed": 2, "va')
    results.append([{"seed": 3}])
    assert results.read() == [{"seed": 1}, {"seed": 3}]
