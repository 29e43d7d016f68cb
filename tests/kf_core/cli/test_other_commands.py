"""`inspect`, `evaluate` and the help: what a file is, what a video is worth, and where a creator finds the way."""

import json
import re

import pytest
from PIL import Image

from kf_core.cli.main import main


def test_inspect_says_what_a_file_is(files, capsys):
    assert main(["inspect", str(files.folder / "tiny.safetensors")]) == 0
    assert "tiny: 3 layers of 48, 2 heads" in capsys.readouterr().out
    assert files.animate(duration=0.5, quiet=True) == 0 and main(["inspect", str(files.folder / "out.mp4")]) == 0
    said = capsys.readouterr().out
    assert "8 frames of 32x32 at 16 FPS" in said and "AI-generated" in said
    assert main(["inspect", str(files.folder / "tiny-vae.safetensors")]) == 0
    assert "a Wan VAE 4 wide, in Wan's own names (--vae)" in capsys.readouterr().out


def test_evaluate_measures_a_video(files, capsys):
    assert files.animate(quiet=True) == 0
    out, folder = str(files.folder / "out.mp4"), files.folder
    assert main(["evaluate", out, "--truth", out, "--json", str(folder / "a.json"), "--sheet", str(folder / "a.png")]) == 0
    assert "temporal flickering" in capsys.readouterr().out
    report = json.loads((folder / "a.json").read_text())
    assert report["frames"] == 24 and Image.open(folder / "a.png").size[0] > 300


def test_what_cannot_be_measured_of_a_video_is_said_in_one_sentence(files, capsys):
    short = dict(duration=0.5, quiet=True)
    assert files.animate(**short) == 0 and files.animate("wide.mp4", **short, width=48) == 0 and files.animate("long.mp4", quiet=True) == 0
    out, wide, long, voice = (str(files.folder / name) for name in ("out.mp4", "wide.mp4", "long.mp4", "voice.wav"))
    too_few = "8 frames are too few to say whether the mouth follows the voice: 18 are needed at 16 FPS"
    for words, sentence in (
        ([out, "--truth", wide], "out.mp4 is 32x32 and .*wide.mp4 is 48x32"),
        ([out, "--audio", voice], too_few),
        ([long, "--audio", voice, "--truth", out], too_few),  # of two videos the shorter one counts
        ([out, "--chunk", "0"], "A chunk of 0 latent frames"),
    ):
        capsys.readouterr()
        assert main(["evaluate", *words]) == 1
        said = capsys.readouterr().err
        assert re.search(sentence, said) and said.count("\n") == 1
    assert main(["evaluate", long, "--audio", voice]) == 0 and "mouth r" in capsys.readouterr().out


@pytest.mark.slow
def test_presets_says_what_each_decides(capsys):
    assert main(["presets"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 16 and all(len(row) == 6 for row in rows)
    assert {row[0].strip() for row in rows} == {"8gb", "12gb", "16gb", "24gb"}
    fits = [float(row[5]) <= float(row[1]) for row in rows]
    assert fits == ["too large" not in row[4] for row in rows] and sum(fits) == 14


def test_help_shows_a_creator_the_way(capsys):
    for words in (["--help"], *([name, "--help"] for name in ("animate", "inspect", "evaluate", "bench", "presets", "plot"))):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0 and len(capsys.readouterr().out) > 200
