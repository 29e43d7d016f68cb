"""`inspect`, `evaluate` and the help: what a file is, what a video is worth, and where a creator finds the way."""

import json

import pytest
from PIL import Image

from kf_core.cli.main import main


def test_inspect_says_what_a_file_is(files, capsys):
    assert main(["inspect", str(files.folder / "tiny.safetensors")]) == 0
    assert "tiny: 3 layers of 48, 2 heads" in capsys.readouterr().out
    assert files.animate(duration=0.5, quiet=True) == 0 and main(["inspect", str(files.folder / "out.mp4")]) == 0
    said = capsys.readouterr().out
    assert "8 pictures of 32x32 at 16 FPS" in said and "AI-generated" in said
    assert main(["inspect", str(files.folder / "tiny-vae.safetensors")]) == 0
    assert "a Wan VAE 4 wide, in Wan's own names (--vae)" in capsys.readouterr().out


def test_evaluate_measures_a_video(files, capsys):
    assert files.animate(quiet=True) == 0
    out, folder = str(files.folder / "out.mp4"), files.folder
    assert main(["evaluate", out, "--truth", out, "--json", str(folder / "a.json"), "--sheet", str(folder / "a.png")]) == 0
    assert "temporal flickering" in capsys.readouterr().out
    report = json.loads((folder / "a.json").read_text())
    assert report["pictures"] == 24 and Image.open(folder / "a.png").size[0] > 300


def test_evaluate_without_anything_says_what_it_takes(capsys):
    assert main(["evaluate"]) == 1
    assert "Give a video, or a protocol" in capsys.readouterr().err


def test_an_ablation_names_variants_that_do_not_exist(capsys, tmp_path):
    assert main(["evaluate", "--ablation", str(tmp_path / "run"), "--variants", "knotless"]) == 1
    assert "There is no variant knotless" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_help_shows_a_creator_the_way(capsys):
    for words in (["--help"], *([name, "--help"] for name in ("animate", "inspect", "evaluate", "bench", "presets", "plot"))):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0 and len(capsys.readouterr().out) > 200
