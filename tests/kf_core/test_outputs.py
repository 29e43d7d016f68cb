"""A result never lies on what it is made of, whatever either is called."""

import os
import sys
import unicodedata

import pytest

from kf_core.errors import KnotForcingError
from kf_core.outputs import refuse_inputs, refuse_place

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links")


def itself(folder, name):
    return folder / name


def another_spelling(folder, name):
    return folder / "sub" / ".." / name


def link(folder, name):
    (folder / "link.mp4").symlink_to(folder / name)
    return folder / "link.mp4"


def link_to_a_link(folder, name):
    link(folder, name)
    (folder / "second.mp4").symlink_to("link.mp4")
    return folder / "second.mp4"


def hard_link(folder, name):
    os.link(folder / name, folder / "hard.mp4")
    return folder / "hard.mp4"


def linked_folder(folder, name):
    (folder / "there").symlink_to(folder, target_is_directory=True)
    return folder / "there" / name


def other_case(folder, name):
    if not (folder / name.upper()).exists():
        pytest.skip("this file system does not fold case; run it on Windows or macOS")
    return folder / name.upper()


def other_accents(folder, name):
    if not (folder / unicodedata.normalize("NFD", name)).exists():
        pytest.skip("this file system keeps both forms of an accent; run it on macOS")
    return folder / unicodedata.normalize("NFD", name)


NAMES = [itself, another_spelling, link, link_to_a_link, hard_link, linked_folder, other_case, other_accents]


@posix
@pytest.mark.parametrize("way", NAMES)
@pytest.mark.parametrize("is_output", [True, False])
def test_one_file_is_known_under_any_name(tmp_path, way, is_output):
    (tmp_path / "sub").mkdir()
    (tmp_path / "také.mp4").write_bytes(b"a voice")
    pair = [tmp_path / "také.mp4", way(tmp_path, "také.mp4")]
    out, voice = pair if is_output else reversed(pair)
    with pytest.raises(KnotForcingError, match="--out .* is the same file as --audio .*Nothing was touched. Give another name for --out"):
        refuse_inputs({"--out": out, "--json": None}, {"--portrait": None, "--audio": voice})
    assert (tmp_path / "také.mp4").read_bytes() == b"a voice"


def test_a_folder_that_is_read_stands_for_all_that_is_in_it(tmp_path):
    deep = tmp_path / "encoder" / "tokenizer" / "spiece.model"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"words")
    os.link(deep, tmp_path / "out.mp4")
    with pytest.raises(KnotForcingError, match="is the same file as --text-encoder"):
        refuse_inputs({"--out": tmp_path / "out.mp4"}, {"--text-encoder": tmp_path / "encoder"})


def test_what_is_not_there_or_somebody_elses_hinders_nothing(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    inputs = {"--audio": tmp_path / "a.mp4", "--pose": tmp_path / "none.mp4", "--vae": tmp_path, "--lora": None}
    refuse_inputs({"--out": tmp_path / "none.mp4"}, inputs)
    refuse_inputs({"--out": tmp_path / "b.mp4"}, inputs | {"--vae": None})


def test_two_results_do_not_go_into_one_file(tmp_path):
    for there in (False, True):
        with pytest.raises(KnotForcingError, match="--sheet and --json are the same file"):
            refuse_inputs({"--json": tmp_path / "a", "--sheet": tmp_path / "sub" / ".." / "a"}, {})
        if not there:
            (tmp_path / "sub").mkdir()
            (tmp_path / "a").touch()
    refuse_inputs({"--json": tmp_path / "a", "--sheet": tmp_path / "b"}, {})


@posix
def test_a_place_is_refused_before_there_is_anything_to_write(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for name, sentence in {
        "none/a.mp4": "the folder .*none does not exist",
        "file/a.mp4": "a part of its path is a file",
        "x" * 300: "its name is too long",
        ".": "is a folder",
        "pipe": "is a pipe or a device",
    }.items():
        with pytest.raises(KnotForcingError, match=sentence):
            refuse_place(tmp_path / name, "--out", is_film=True)
    refuse_place(tmp_path / "pipe", "--json")
    refuse_place(tmp_path / "file", "--out", is_film=True)
    refuse_place(tmp_path / "a.mp4", "--out", is_film=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "pipe"]
