"""What is wrong is said in one sentence, before anything is made."""

import re

import av
import pytest
import torch
from PIL import Image

from kf_core.cli.main import main
from kf_core.media.playback import probe

from .commands import refusal


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (dict(portrait="none.png"), "does not exist"),
        (dict(audio="none.mp3"), "The audio file none.mp3 does not exist"),
        (dict(checkpoint="none.pt"), "does not exist"),
        (dict(pose="none.mp4"), "does not exist"),
        (dict(audio="{folder}/portrait.png"), "no sound"),
        (dict(portrait="{folder}/voice.wav"), "not an image"),
        (dict(checkpoint="{folder}/portrait.png"), "is a PNG image"),
        (dict(checkpoint="{folder}/tiny-vae.safetensors"), "not a generator this version knows"),
        (dict(vae="{folder}/tiny.safetensors"), "not a Wan VAE"),
        (dict(out="{folder}/no/such/folder/out.mp4"), "folder .* does not exist"),
        (dict(out="{folder}/out.avi"), "not an .mp4"),
        (dict(steps=0), "0 denoising steps"),
        (dict(width=50), "width of 50 .* multiple of 16. Give 48"),
        (dict(height=-3), "height of -3"),
        (dict(duration=0), "0 s cannot be made"),
        (dict(duration="nan"), "cannot be made"),
        (dict(audio=None), "How long"),
        (dict(motion_strength=5), "between 0 and 2"),
        (dict(threads=0), "0 threads"),
        (dict(device="cuda:77"), "device cuda:77 is not there"),
        (dict(script="[00:20-00:10] smile"), "00:10"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(files, capsys, changed, sentence):
    changed = {name: value.format(folder=files.folder) if isinstance(value, str) else value for name, value in changed.items()}
    assert re.search(sentence, refusal(files, capsys, **changed))
    assert not (files.folder / "out.mp4").exists()


def test_files_that_are_broken_are_named(files, capsys):
    folder = files.folder
    (folder / "empty.mp3").touch()
    assert "empty" in refusal(files, capsys, audio=folder / "empty.mp3")
    Image.new("RGB", (8000, 200), "grey").save(folder / "wide.png")
    assert "is 40 times as wide as high" in refusal(files, capsys, portrait=folder / "wide.png")
    (folder / "cut.png").write_bytes((folder / "portrait.png").read_bytes()[:5000])
    assert "cut off" in refusal(files, capsys, portrait=folder / "cut.png")
    (folder / "cut.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes()[:-500])
    assert "cut off" in refusal(files, capsys, checkpoint=folder / "cut.safetensors")
    (folder / "huge.safetensors").write_bytes((2**60).to_bytes(8, "little") + bytes(100))
    assert "claims 1,152,921" in refusal(files, capsys, checkpoint=folder / "huge.safetensors")
    torch.save({"weights": torch.ones(3), "code": _Code()}, folder / "code.pt")
    assert "none of it was run" in refusal(files, capsys, checkpoint=folder / "code.pt") and not _Code.was_run


class _Code:
    was_run = False

    def __reduce__(self):
        return setattr, (_Code, "was_run", True)


def test_a_voice_that_is_cut_off_is_used_as_far_as_it_goes(files, capsys):
    voice = files.folder / "voice.mp3"
    with av.open(str(files.folder / "voice.wav")) as source, av.open(str(voice), "w") as target:
        track = target.add_stream("libmp3lame", rate=16000)
        for frame in source.decode(audio=0):
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    voice.write_bytes(voice.read_bytes()[: voice.stat().st_size * 2 // 3])
    assert files.animate(audio=voice) == 0
    assert "is cut off" in capsys.readouterr().err and 14 <= probe(files.folder / "out.mp4").frames <= 18


def test_a_word_mistyped_is_said_with_the_way_to_help(files, capsys):
    for words, sentence in ((["animte"], "invalid choice"), (["animate"], "required: --portrait"), (files.words(seed="x"), "invalid int")):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2 and sentence in capsys.readouterr().err
