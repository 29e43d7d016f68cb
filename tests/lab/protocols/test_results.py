"""Results that several processes write into one folder."""

import subprocess
import sys
import time

import pytest

from kf_core.errors import KnotForcingError
from lab.protocols.results import Results, claim, written_once

CLAIM_OFTEN = """
import pathlib, sys
from lab.protocols.results import claim
for _ in range(2000):
    claim(pathlib.Path(sys.argv[1]), "w")
"""


def test_processes_that_begin_at_the_same_moment_take_the_same_folder(tmp_path):
    running = [subprocess.Popen([sys.executable, "-c", CLAIM_OFTEN, str(tmp_path)], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], said
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]


CLAIM_AT_ONCE = """
import pathlib, sys, time
from kf_core.errors import KnotForcingError
from lab.protocols.results import claim
folder, weights = pathlib.Path(sys.argv[1]), sys.argv[2]
for round in range(200):
    while time.time() < float(sys.argv[3]) + round * 0.01:
        pass
    try:
        claim(folder / str(round), weights)
        print(round)
    except KnotForcingError:
        pass
"""


def test_processes_of_different_weights_never_both_take_a_folder(tmp_path):
    begin = str(time.time() + 4)
    words = [[sys.executable, "-c", CLAIM_AT_ONCE, str(tmp_path), weights, begin] for weights in ("mine", "yours")]
    running = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True) for each in words]
    mine, yours = ({int(line) for line in process.communicate()[0].split()} for process in running)
    assert not mine & yours and mine | yours == set(range(200))


def test_a_file_that_several_need_is_the_first_ones_and_whole(tmp_path):
    path = tmp_path / "deep" / "speech.txt"

    def first_while_another_was_faster(own):
        own.write_text("slow")
        path.write_text("fast")

    written_once(path, first_while_another_was_faster)
    written_once(path, lambda own: own.write_text("late"))
    assert path.read_text() == "fast" and list(path.parent.iterdir()) == [path]

    def on_a_full_disk(own):
        own.write_text("ha")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        written_once(tmp_path / "half", on_a_full_disk)
    assert not [each for each in tmp_path.iterdir() if each.is_file()]


def test_a_folder_of_other_weights_is_refused_and_left_as_it_was(tmp_path):
    claim(tmp_path, "mine")
    with pytest.raises(KnotForcingError, match=r"other weights, or of another precision \(mine; these are yours\)"):
        claim(tmp_path, "yours")
    claim(tmp_path, "mine")


def test_a_line_that_was_cut_off_does_not_count_and_swallows_nothing(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    results.append([{"seed": 1}])
    with results.path.open("a", encoding="utf-8") as file:
        file.write('{"seed": 2, "va')
    results.append([{"seed": 3}])
    with results.path.open("a", encoding="utf-8") as file:
        file.write('{"seed": 4, "tracks": {"a": [1]}')  # ends as a whole line does
    results.append([{"seed": 5}])
    assert results.read() == [{"seed": 1}, {"seed": 3}, {"seed": 5}]
