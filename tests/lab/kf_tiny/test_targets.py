"""Laws of the table of goals: a number beside the one that was asked for, and no row for what was not measured."""

import json

import pytest

from lab.kf_tiny.targets import Goal, goals, goals_table, read_protocols

ABOUT = {"command": "python -m kf_core evaluate --mouth DIR", "code": "abc1234", "date": "2026-11-25", "machine": "a machine"}
CODEC = {"psnr": 28.4, "psnr_mouth": 26.5}
MEASURES = {
    "conditions": {
        condition: {"each": [{"mouth r": 0.9}, {"mouth r": worst}], "mean": {"mouth r, shifted 0.5 s": -0.3}}
        for condition, worst in (("pose and sound", 0.6), ("sound only", 0.3))
    }
}
PART = {
    "closures": {"mouth shut at m, b, p": 0.6, "shut 0.5 s away": 0.4},
    "pause": {"opening, share of speech": 0.05, "largest of a sitter": 0.4},
    "voice": {"r": 0.6, "shifted": 0.1},
}
MOUTH = {"about": ABOUT, "found": {name: {"pose and sound": part, "sound only": part} for name, part in PART.items()}}


def found(protocols=None) -> dict[str, Goal]:
    return {goal.name: goal for goal in goals(CODEC, MEASURES, protocols or {})}


@pytest.mark.parametrize("sign, number, is_reached", [(1, 0.5, True), (1, 0.499, False), (-1, 0.5, True), (-1, 0.501, False)])
def test_a_goal_is_reached_at_its_bound_and_not_beyond(sign, number, is_reached):
    goal = Goal("a number", sign, 0.5, number)
    assert goal.is_reached == is_reached and ("**no**" in goal.row()) == (not is_reached)


def test_the_worst_face_counts_by_itself_and_a_shift_by_its_size():
    rows = found()
    assert rows["mouth r, pose and sound"].is_reached and rows["mouth r, pose and sound, the worst face"].is_reached
    assert not rows["mouth r, sound only"].is_reached and not rows["mouth r, sound only, the worst face"].is_reached
    assert not rows["mouth r, sound only, shifted by 0.5 s"].is_reached
    assert not rows["PSNR of the autoencoder, held-out clips, dB"].is_reached and rows["the same at the mouth, dB"].is_reached


def test_what_was_not_measured_has_no_row_and_what_was_names_its_command(tmp_path):
    assert read_protocols(tmp_path) == {} and not any("m, b, p" in row for row in goals_table(CODEC, MEASURES, {}))
    (tmp_path / "mouth").mkdir()
    (tmp_path / "mouth" / "mouth.json").write_text(json.dumps(MOUTH))
    lines = goals_table(CODEC, MEASURES, read_protocols(tmp_path))
    assert "| mouth shut at m, b, p (half a second away: 0.40), sound only | >= 0.8 | 0.6 | **no** |" in lines
    assert any(ABOUT["command"] in line and ABOUT["code"] in line for line in lines)
    assert any("not run with these weights: drift, ablation;" in line for line in lines)


def test_without_the_knot_seams_must_be_larger_beyond_chance():
    def seams(low):
        return {"seam ratio over the codec's": {"mean": 1.0, "difference": {"low": low}}}

    table = {"seconds": 20.0, "condition": "sound only", "rows": {"full": seams(0.0), "without-knot": seams(-0.01)}}
    few = table | {"seconds": 60.0, "rows": {"full": seams(0.0), "without-knot": seams(None)}}  # sitters without an interval
    rows = found({"ablation": {"about": ABOUT, "tables": [table, few]}})
    assert rows["seam ratio with the knot, sound only, 20 s"].is_reached
    assert not rows["how much larger without it, lower end of 95 %, sound only, 20 s"].is_reached
    assert "seam ratio with the knot, sound only, 60 s" in rows and not any("larger" in name and "60 s" in name for name in rows)


def test_idle_life_has_rows_only_where_it_was_measured():
    assert not any("idle" in name for name in found({"mouth": MOUTH}))
    alive = PART["closures"] | {"mouth r": 0.72, "lowest mouth r of a sitter": 0.4, "mouth r, shifted 0.5 s": -0.3}
    parts = {"closures": {"sound and idle life": alive}, "pause": {"sound and idle life": PART["pause"]}}
    rows = found({"mouth": {"about": ABOUT, "found": {name: MOUTH["found"][name] | parts.get(name, {}) for name in PART}}})
    assert rows["mouth r, sound and idle life"].is_reached and not rows["mouth r, sound and idle life, the worst face"].is_reached
    assert not rows["mouth r, sound and idle life, shifted by 0.5 s"].is_reached
    assert "mouth shut at m, b, p (half a second away: 0.40), sound and idle life" in rows
    assert "r with a recorded voice, sound and idle life" not in rows
