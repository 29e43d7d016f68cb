"""What a page says of the files that were measured is what their headers and git know."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lab.kf_tiny.batches import LAYOUTS
from lab.kf_tiny.coverage import coverage
from lab.protocols.measured_files import LAST_WITHOUT_NUMBER, MeasuredFiles

from ...kf_core.tiny import CARD


def test_how_a_model_was_trained_is_not_told_from_code_that_is_not_its_own(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"training": json.dumps({"steps": 1, "commit": "unknown"})})
    files = MeasuredFiles(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert files.trained_under(CARD.rollout, 2) is None and "trained for 1 steps at commit unknown" in files.facts()["model"]


@pytest.mark.parametrize("told, is_known", [(2, True), (1, False), (3, False)])
def test_a_file_that_says_how_its_batches_were_laid_out_is_believed(tmp_path, told, is_known):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"training": json.dumps({"layouts": told})})
    found = MeasuredFiles(tmp_path / "a.safetensors", tmp_path / "b.safetensors").trained_under(CARD.rollout, 2)
    assert found == (CARD.rollout if is_known else None)


def test_the_bundled_files_batches_are_told_from_their_commit_and_had_no_beginning_on_the_portrait():
    if subprocess.run(["git", "cat-file", "-e", LAST_WITHOUT_NUMBER], cwd=Path(__file__).parent, capture_output=True).returncode:
        pytest.skip("the history is not here")
    own = replace(CARD.rollout, first_frame="tie")
    found = MeasuredFiles.of(None, None).trained_under(own, LAYOUTS)
    assert found == replace(own, first_frame="free")
    without_portrait = coverage(found, replace(own, anchor=None))
    assert without_portrait.share == pytest.approx(0.10) and coverage(found, own).share == pytest.approx(0.33)


def test_without_a_choice_the_bundled_files_are_measured():
    files = MeasuredFiles.of(None, None)
    assert (files.generator.name, files.vae.name) == ("kf-tiny.safetensors", "kf-tiny-vae.safetensors")
    assert "steps at commit" in files.facts()["model"]
