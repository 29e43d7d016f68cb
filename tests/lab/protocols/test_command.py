"""The laboratory's commands: what a protocol does not use is refused, and what it keeps repeats its run."""

import argparse
import shlex

import pytest

from lab.__main__ import main
from lab.protocols import command as protocols


def test_an_ablation_names_variants_that_do_not_exist(capsys, tmp_path):
    assert main(["ablation", str(tmp_path / "run"), "--variants", "knotless"]) == 1
    assert "There is no variant knotless" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mouth", "{run}", "--conditions", "sound only", "--note", "A note."], "--conditions, --note: mouth does not use it"),
        (["attention", "{run}", "--page", "a.md", "--together", "2"], "--together, --page: attention does not use it"),
        (["ablation", "{run}", "--voice", "a.wav"], "--voice: ablation does not use it"),
        (["mouth", "{run}", "--identities", "0"], "0 sitters show nothing. Give --identities 1 or more"),
        (["drift", "{run}", "--together", "0"], "0 sitters show nothing. Give --together 1 or more"),
        (["ablation", "{run}", "--seconds", "0"], "Clips of 0 s cannot be made"),
        (["mouth", "{run}", "--seconds", "1"], "Clips of 17 frames are too short to say whether a mouth follows: 18 are needed"),
    ],
)
def test_what_a_protocol_does_not_use_is_refused_before_it_begins(capsys, tmp_path, words, sentence):
    assert main([*(word.format(run=tmp_path / "run") for word in words)]) == 1
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
        chosen = parser.parse_args([protocol, "DIR", *words, *own])
        kept = protocols.command_of(chosen, protocol)
        assert kept.startswith(f"python -m lab {protocol} DIR --seconds ")
        again = parser.parse_args(shlex.split(kept)[3:])
        assert vars(again) == vars(chosen) | {"note": "", "page": None}
    plain = protocols.command_of(parser.parse_args(["drift", "DIR"]), "drift")
    assert plain == "python -m lab drift DIR --seconds 20 --identities 16"
    elsewhere = parser.parse_args(["drift", "DIR", "--checkpoint", "some/folder/own.safetensors"])
    assert protocols.command_of(elsewhere, "drift").endswith(" --checkpoint own.safetensors")


def test_without_a_command_it_says_what_there_is(capsys):
    assert main([]) == 0 and main(["no-such"]) == 2
    said = capsys.readouterr().out
    assert all(f"    {name}" in said for name in ("kf-tiny", *protocols.PROTOCOLS))
