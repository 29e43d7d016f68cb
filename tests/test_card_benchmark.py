"""Laws of the benchmark of a card, run through at the smallest size: every part leaves numbers, and nothing is measured twice."""

import json
from dataclasses import replace

import pytest

from kf_core.cli import bench

from .benchmarks.card import __main__ as command
from .benchmarks.card.parts import FILM, FIRST, MEMORY, PEER, PROFILE, parts
from .benchmarks.card.record import Record
from .benchmarks.card.scale import TINY

SMALLEST = replace(TINY, wide=(32, 32), square=(16, 16), denoised=3, film=3, firsts=1, held=4, profiled=1)


@pytest.fixture
def card(tmp_path, monkeypatch):
    """The command in an empty folder; without what needs a compiler, and without the public pipeline."""
    monkeypatch.setattr(bench, "EACH", ((),))
    monkeypatch.setattr(command, "PUBLIC", ())
    return lambda *words: command.main(["--json", str(tmp_path / "card.json"), "--device", "cpu", *words], SMALLEST)


def the_run(tmp_path) -> dict:
    (run,) = json.loads((tmp_path / "card.json").read_text())["runs"]
    return run


@pytest.mark.slow
def test_every_part_leaves_numbers_and_a_second_call_measures_nothing_again(card, tmp_path, capsys):
    assert card() == 0
    run = the_run(tmp_path)
    assert set(run["parts"]) == {part.name for part in parts(None)} >= {FILM, FIRST, MEMORY, PROFILE}
    assert run["failed"] == {} and set(run["left_out"]) == {PEER}
    hot, film = run["parts"]["wide, optimized forward"], run["parts"][FILM]
    assert hot["denoised_per_second"] > 0 and hot["difference"]["largest"] < 1e-5
    assert film["frames"] == film["wanted"] and film["frames_per_second"] > 0
    assert run["parts"][MEMORY]["last_change"] <= 3
    assert "THE PUBLIC SELF-FORCING PIPELINE IS NOT COMPARED" in capsys.readouterr().err

    assert card() == 0 and the_run(tmp_path)["parts"] == run["parts"]
    page = (tmp_path / "card.md").read_text()
    assert page in capsys.readouterr().out and "optimized forward" in page


@pytest.mark.slow
def test_what_there_is_no_time_for_is_left_out_and_done_by_the_next_call(card, tmp_path):
    assert card("--minutes", "0") == 0
    run = the_run(tmp_path)
    assert run["parts"] == {} and all("minutes were over" in why for name, why in run["left_out"].items() if name != PEER)
    assert card() == 0 and set(the_run(tmp_path)["left_out"]) == {PEER}


def test_runs_of_other_sources_and_machines_are_kept(tmp_path):
    facts = {"sources": "a", "machine": "one", "scale": "tiny", "date": "today"}
    Record.open(tmp_path / "card.json", facts).put("a part", {"number": 1})
    Record.open(tmp_path / "card.json", facts | {"machine": "another"}).put("a part", {"number": 2})
    again = Record.open(tmp_path / "card.json", facts | {"date": "tomorrow"})
    assert again.has("a part") and again.run["parts"]["a part"] == {"number": 1} and again.run["date"] == "tomorrow"
    assert len(json.loads((tmp_path / "card.json").read_text())["runs"]) == 2
