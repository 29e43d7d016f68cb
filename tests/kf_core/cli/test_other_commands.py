"""`inspect`, `evaluate` and the help: what a file is, what a video is worth, and where a creator finds the way."""

import argparse
import json
import re
import shlex

import pytest
from PIL import Image

from kf_core.cli import protocols
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


def test_evaluate_without_anything_says_what_it_takes(capsys):
    assert main(["evaluate"]) == 1
    assert "Give a video, or a protocol" in capsys.readouterr().err


def test_an_ablation_names_variants_that_do_not_exist(capsys, tmp_path):
    assert main(["evaluate", "--ablation", str(tmp_path / "run"), "--variants", "knotless"]) == 1
    assert "There is no variant knotless" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["talk.mp4", "--mouth", "{run}"], "talk.mp4: --mouth draws what it measures"),
        (["--mouth", "{run}", "--conditions", "sound only", "--note", "A note."], "--conditions, --note: --mouth does not use it"),
        (["--drift", "{run}", "--json", "a.json", "--sheet", "a.png"], "--json, --sheet: --drift does not use it"),
        (["--attention", "{run}", "--page", "a.md", "--together", "2"], "--together, --page: --attention does not use it"),
        (["--ablation", "{run}", "--voice", "a.wav"], "--voice: --ablation does not use it"),
        (["--ablation", "{run}", "--mouth", "{run}"], "--ablation, --mouth: each is a run of its own"),
        (["talk.mp4", "--seconds", "5"], "--seconds: only a protocol uses it"),
        (["--mouth", "{run}", "--identities", "0"], "0 sitters show nothing. Give --identities 1 or more"),
        (["--drift", "{run}", "--together", "0"], "0 sitters show nothing. Give --together 1 or more"),
        (["--ablation", "{run}", "--seconds", "0"], "Clips of 0 s cannot be made"),
        (["--mouth", "{run}", "--seconds", "1"], "Clips of 17 frames are too short to say whether a mouth follows: 18 are needed"),
    ],
)
def test_what_a_protocol_does_not_use_is_refused_before_it_begins(capsys, tmp_path, words, sentence):
    assert main(["evaluate", *(word.format(run=tmp_path / "run") for word in words)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_the_words_that_a_protocol_keeps_repeat_its_run():
    """All that are not as by default, however they were typed: parsed again, they choose the same but for where it is kept."""
    parser = argparse.ArgumentParser()
    protocols.add_arguments(parser)
    words = ["--first-seed", "7", "--together", "2", "--checkpoint", "a model.safetensors", "--vae", "v.safetensors", "--threads", "2"]
    for protocol, own in {
        "ablation": ["--variants", "full,without-knot", "--conditions", "pose and sound", "--note", "Mine.", "--page", "page.md"],
        "mouth": ["--voice", "a.wav", "b.wav", "--idle", "--seconds", "12.5"],
    }.items():
        chosen = parser.parse_args([f"--{protocol}", "DIR", *words, *own])
        kept = protocols.command_of(chosen, protocol)
        assert kept.startswith(f"python -m kf_core evaluate --{protocol} DIR --seconds ")
        again = parser.parse_args(shlex.split(kept)[4:])
        assert vars(again) == vars(chosen) | {"note": "", "page": None}
    plain = protocols.command_of(parser.parse_args(["--drift", "DIR"]), "drift")
    assert plain == "python -m kf_core evaluate --drift DIR --seconds 20 --identities 16"
    elsewhere = parser.parse_args(["--drift", "DIR", "--checkpoint", "some/folder/own.safetensors"])
    assert protocols.command_of(elsewhere, "drift").endswith(" --checkpoint own.safetensors")


def test_help_shows_a_creator_the_way(capsys):
    for words in (["--help"], *([name, "--help"] for name in ("animate", "inspect", "evaluate", "bench", "presets", "plot"))):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0 and len(capsys.readouterr().out) > 200
