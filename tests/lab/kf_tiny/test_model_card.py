"""The model card says what was measured, of which weights, and when."""

import json
from pathlib import Path

import kf_core
from kf_core.checkpoints.read import read_header
from lab.kf_tiny.model_card import write_card

ASSETS = Path(kf_core.__file__).parent / "assets"
FILES = (ASSETS / "kf-tiny.safetensors", ASSETS / "kf-tiny-vae.safetensors")
CONDITION = {"mean": {"mouth r": 0.7, "mouth r, shifted 0.5 s": 0.01}, "each": [{"mouth r": 0.9}, {"mouth r": 0.5}]}


def test_a_card_says_what_was_measured_with_its_worst_face_and_where_it_comes_from(tmp_path):
    measures = {"conditions": dict.fromkeys(("codec", "pose and sound", "sound only"), CONDITION), "seconds": 20, "long_seconds": 60}
    measures["about"] = {"code": "abc1234", "date": "2026-11-25", "machine": "float32 on cpu, a machine"}
    write_card(tmp_path / "card.md", *FILES, measures, tmp_path)
    lines = (tmp_path / "card.md").read_text(encoding="utf-8").splitlines()
    assert "| mouth r | 0.7 (0.50) | 0.7 (0.50) | 0.7 (0.50) |" in lines
    assert "`python -m lab measures`, commit abc1234, 2026-11-25, float32 on cpu, a machine" in lines


def test_the_bundled_card_is_of_the_bundled_weights():
    trained = json.loads(read_header(FILES[0]).metadata["training"])
    assert f"Weights of commit `{trained['commit']}`" in (ASSETS / "kf-tiny.md").read_text(encoding="utf-8")
