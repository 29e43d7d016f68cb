"""No command writes over what it reads, and none begins what it cannot end."""

import os
import re
import sys
from pathlib import Path

import pytest

from kf_core.cli.main import main
from kf_core.lock import locked
from kf_core.media.playback import probe

from .commands import refusal

WORDS = ["audio", "portrait", "pose", "control", "script", "checkpoint", "vae", "lora", "decoder", "control_module"]  # that name a file
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@posix
@pytest.mark.parametrize("how", ["overwrite", "resume"])
@pytest.mark.parametrize(
    "word", ["audio", "portrait", "pose", "control", "script", "checkpoint", "vae", "lora", "decoder", "control_module"]
)
def test_a_video_is_not_written_over_what_it_is_made_of(files, capsys, word, how):
    given = {"audio": "voice.wav", "portrait": "portrait.png", "checkpoint": "tiny.safetensors"}.get(word, "other.file")
    (files.folder / "other.file").write_bytes(b"smile")
    (files.folder / "out.mp4").symlink_to(files.folder / given)
    before = contents(files.folder)
    said = refusal(files, capsys, **{word: files.folder / given, how: True})
    assert re.search(f"--out .*out.mp4.* is the same file as --{word.replace('_', '-')} .*{given}.*Nothing was touched", said)
    assert contents(files.folder) == before


@posix
@pytest.mark.parametrize("word", ["audio_encoder", "text_encoder", "spool"])
def test_nor_over_what_lies_in_a_folder_that_it_reads(files, capsys, word):
    (files.folder / "read").mkdir()
    (files.folder / "read" / "0123.latents").write_bytes(b"weights")
    os.link(files.folder / "read" / "0123.latents", files.folder / "out.mp4")
    said = refusal(files, capsys, **{word: files.folder / "read", "overwrite": True})
    assert "is the same file as" in said and (files.folder / "out.mp4").read_bytes() == b"weights"


@posix
def test_nor_over_what_comes_with_a_model(files, capsys, tmp_path):
    for name in ("tiny-vae.safetensors", None):
        target = files.folder / name if name else Path(__file__).parents[3] / "kf_core" / "assets" / "kf-tiny.safetensors"
        (files.folder / "out.mp4").unlink(missing_ok=True)
        (files.folder / "out.mp4").symlink_to(target)
        assert "is the same file as" in refusal(files, capsys, overwrite=True) and target.stat().st_size > 1000


@pytest.mark.parametrize("ending", [".resume", ".resume.lock", ".resume.latents"])
def test_nor_is_what_lies_beside_the_video_an_input(files, capsys, ending):
    voice = (files.folder / "voice.wav").rename(files.folder / f"out.mp4{ending}")
    before = contents(files.folder)
    assert "is the same file as --audio" in refusal(files, capsys, audio=voice)
    assert contents(files.folder) == before


def test_a_file_that_only_has_the_states_name_stays(files, capsys):
    (files.folder / "out.mp4.resume").write_text("what I still have to do")
    assert "another file has that name" in refusal(files, capsys)
    assert (files.folder / "out.mp4.resume").read_text() == "what I still have to do" and not (files.folder / "out.mp4").exists()


def test_the_old_video_and_its_state_stay_until_the_new_one_has_begun(files, capsys):
    assert files.animate(duration=0.5, quiet=True) == 0
    (files.folder / "out.mp4.resume").touch()
    before = contents(files.folder)
    assert "0 threads" in refusal(files, capsys, overwrite=True, threads=0)
    assert "between 0 and 2" in refusal(files, capsys, overwrite=True, motion_strength=5)
    assert contents(files.folder) == before
    assert files.animate(overwrite=True, quiet=True) == 0 and probe(files.folder / "out.mp4").frames == 24
    assert not (files.folder / "out.mp4.resume").exists()


@posix
def test_a_link_stays_and_the_video_with_its_state_is_where_it_leads(files):
    (files.folder / "there").mkdir()
    (files.folder / "out.mp4").symlink_to(Path("there", "film.mp4"))
    assert files.animate(duration=0.5, quiet=True, overwrite=True) == 0
    assert (files.folder / "out.mp4").is_symlink() and [file.name for file in (files.folder / "there").iterdir()] == ["film.mp4"]
    assert files.animate(resume=True, quiet=True) == 0
    assert (files.folder / "out.mp4").is_symlink() and probe(files.folder / "there" / "film.mp4").frames == 24


def test_a_video_that_is_being_made_is_not_made_twice(files, capsys):
    with locked(files.folder / "out.mp4.resume", files.folder / "out.mp4"):
        assert "is being made by another process" in refusal(files, capsys)
    assert files.animate(duration=0.1, quiet=True) == 0


@posix
@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("/", "is not an .mp4 name. Call the video, for example, talk.mp4"),
        ("-", "- is not an .mp4 name"),
        ("{folder}/voice.wav/out.mp4", "a part of its path is a file"),
        ("{folder}/" + "x" * 300 + ".mp4", "its name is too long"),
        ("{folder}/folder.mp4", "is a folder"),
        ("{folder}/pipe.mp4", "is a pipe or a device"),
        ("{folder}/device.mp4", "is a pipe or a device"),
        ("{folder}/circle.mp4", "its links lead in a circle|is there already"),
        ("{folder}/nowhere.mp4", "does not exist|is there already"),
    ],
)
def test_a_place_where_no_video_can_be_is_refused_before_a_model_is_loaded(files, capsys, out, sentence):
    folder = files.folder
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "device.mp4").symlink_to("/dev/null")
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    (folder / "nowhere.mp4").symlink_to(folder / "no" / "such.mp4")
    for how in ({}, {"overwrite": True}, {"resume": True}):
        said = refusal(files, capsys, out=out.format(folder=folder), **how)
        assert re.search(sentence, said) or (not how and "is there already" in said), said


def test_a_spool_that_cannot_be_written_is_a_sentence(files, capsys, monkeypatch):
    assert "is not a folder" in refusal(files, capsys, spool=files.folder / "voice.wav")
    if sys.platform != "win32":
        assert "a part of its path is a file" in refusal(files, capsys, spool=files.folder / "voice.wav" / "kept")


@posix
@pytest.mark.parametrize("name", ["x" * 246 + ".mp4", "😀" * 61 + ".mp4", "a: b%d\n-.mp4", os.fsdecode(b"caf\xe9.mp4")])
def test_a_name_of_any_letters_and_length_will_do(files, name, capsys):
    assert files.animate(name, duration=0.3) == 0
    assert files.animate(name, duration=0.6, resume=True) == 0
    assert probe(files.folder / name).frames == 10 and len(list(files.folder.glob("*~*"))) == 0


@posix
def test_inputs_of_any_name_will_do(files, monkeypatch):
    monkeypatch.chdir(files.folder)
    (files.folder / "voice.wav").rename("concat:a|b.wav")
    (files.folder / "portrait.png").rename("😀%d.png")
    assert files.animate(audio="concat:a|b.wav", portrait="😀%d.png", script="smile " * 60, duration=0.3, quiet=True) == 0


@posix
def test_the_other_commands_do_not_write_over_what_they_read(files, capsys):
    assert files.animate(quiet=True, duration=1.5) == 0
    out, folder = files.folder / "out.mp4", files.folder
    (folder / "link.json").symlink_to(out)
    (folder / "numbers.json").write_text('{"a": 1}')
    before = contents(folder)
    for words in (
        ["evaluate", out, "--json", out],
        ["evaluate", out, "--json", folder / "link.json"],
        ["evaluate", out, "--portrait", folder / "portrait.png", "--sheet", folder / "portrait.png"],
        ["evaluate", out, "--json", folder / "a.png", "--sheet", folder / "a.png"],
        ["plot", folder / "numbers.json", folder / "numbers.json"],
        ["bench", "--seconds", "1", "--checkpoint", folder / "tiny.safetensors", "--json", folder / "tiny.safetensors"],
        ["bench", "--seconds", "1", "--film", folder / "b.mp4", "--json", folder / "b.mp4"],
    ):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 1
        said = capsys.readouterr().err
        assert re.search("is the same file as|are the same file", said) and said.count("\n") == 1, words
    assert contents(folder) == before


@posix
def test_the_other_commands_say_first_where_they_cannot_write(files, capsys):
    assert files.animate(quiet=True, duration=0.1) == 0
    out, folder = files.folder / "out.mp4", files.folder
    for words, sentence in (
        (["evaluate", out, "--json", folder / "no" / "a.json"], "folder .* does not exist"),
        (["evaluate", out, "--sheet", folder / "a.xyz"], "a.xyz is not the name of an image"),
        (["bench", "--json", folder], "is a folder"),
        (["bench", "--seconds", "1", "--film", out], "is there already"),
        (["bench", "--seconds", "1", "--film", folder / "a.avi"], "is not an .mp4 name"),
        (["plot", folder / "none.json", folder / "no" / "a.svg"], "does not exist|cannot be read"),
    ):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 1
        said = capsys.readouterr().err
        assert re.search(sentence, said) and said.count("\n") == 1, said
    assert probe(out).frames == 2
