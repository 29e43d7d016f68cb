"""VBench is called where it is installed, and what is missing is named. A package of the same interface stands in for it."""

import sys

import pytest

from kf_core.errors import KnotForcingError
from kf_core.metrics.vbench import DIMENSIONS, vbench

STAND_IN = """
import json, os
class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.output_path = output_path
    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False, read_frame=False, mode="vbench_standard"):
        assert mode == "custom_input" and local and os.path.isfile(videos_path)
        (dimension,) = dimension_list
        if dimension == os.environ.get("FAILS"):
            raise OSError("no model")
        results = {dimension: [len(dimension) / 100, []]}
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump(results, file)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """All files are there, empty."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "cache"))
    for file in (file for files in DIMENSIONS.values() for file in files):
        (tmp_path / "cache" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / file).touch()
    return tmp_path / "cache"


@pytest.fixture
def video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a video")
    return tmp_path / "a.mp4"


def test_an_installed_vbench_is_asked_for_its_dimensions(video, cache, tmp_path, monkeypatch):
    (tmp_path / "vbench.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = vbench(video)
    assert found.scores == {dimension: len(dimension) / 100 for dimension in DIMENSIONS} and not found.missing


def test_a_python_without_vbench_is_told_how_to_get_it(video):
    with pytest.raises(KnotForcingError, match="pip install vbench"):
        vbench(video)


def test_a_dimension_that_fails_does_not_take_the_others_with_it(video, cache, tmp_path, monkeypatch):
    (tmp_path / "vbench.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAILS", "aesthetic_quality")
    found = vbench(video)
    assert len(found.scores) == len(DIMENSIONS) - 1 and found.missing == {"aesthetic_quality": "OSError: no model"}


def test_nothing_is_fetched_and_the_files_that_are_missing_are_named(video, cache, tmp_path, monkeypatch):
    (tmp_path / "vbench.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (cache / "clip_model" / "ViT-B-32.pt").unlink()
    found = vbench(video)
    assert list(found.missing) == ["background_consistency"] and "lacks clip_model/ViT-B-32.pt" in found.missing["background_consistency"]


def test_what_is_no_python_and_what_is_no_video_is_said(video, tmp_path):
    with pytest.raises(KnotForcingError, match="cannot be run"):
        vbench(video, tmp_path / "nothing")
    with pytest.raises(KnotForcingError, match="VBench reads"):
        vbench(video.with_suffix(".webm"), sys.executable)
