"""What a page says of the files that were measured is what their headers and git know."""

import json

import torch
from safetensors.torch import save_file

from kf_core.cli.measured_files import MeasuredFiles


def test_how_a_model_was_trained_is_not_told_from_code_that_is_not_its_own(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"training": json.dumps({"steps": 1, "commit": "unknown"})})
    files = MeasuredFiles(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert not files.layouts_are_this_codes() and "trained for 1 steps at commit unknown" in files.facts()["model"]


def test_without_a_choice_the_bundled_files_are_measured():
    files = MeasuredFiles.of(None, None)
    assert (files.generator.name, files.vae.name) == ("kf-tiny.safetensors", "kf-tiny-vae.safetensors")
    assert "steps at commit" in files.facts()["model"]
