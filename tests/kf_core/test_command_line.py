"""What a creator can rely on: one command, one clear sentence for what is wrong, and nothing that was made is ever lost."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
import wave
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from skimage import data
from torch._inductor.utils import fresh_cache

from kf_core.checkpoints.known import self_forcing, wan_t2v
from kf_core.cli.main import main
from kf_core.cli.model import settings_for
from kf_core.errors import KnotForcingError
from kf_core.media.playback import pictures, probe
from kf_core.model.card import CARD_KEY
from kf_core.model.vace import Vace
from kf_core.schedule import few_steps
from kf_core.spool import Spool
from kf_core.vae.tiny import TinyVAE
from kf_core.vae.wan import WanVAE

from . import tiny

CARD = replace(tiny.CARD, name="tiny", audio=replace(tiny.CARD.audio, width=256), width=32, height=32)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and file size limits")
THREE_HOURS = 3 * 3600 * 16000 * 2  # bytes of sound


@dataclass(frozen=True)
class Files:
    """A real tiny model, a portrait and a voice in a folder."""

    folder: Path

    def words(self, out: str = "out.mp4", **changed) -> list[str]:
        """The words of an `animate` that works; an option given as None is left away, True is a flag."""
        given = {"portrait": self.folder / "portrait.png", "audio": self.folder / "voice.wav", "out": self.folder / out}
        given |= {"checkpoint": self.folder / "tiny.safetensors", "precision": "fp32"} | changed
        words = ["animate"]
        for name, value in given.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words

    def animate(self, out: str = "out.mp4", **changed) -> int:
        return main(self.words(out, **changed))

    def subprocess(self, out: str, **changed) -> subprocess.Popen:
        words = [sys.executable, "-m", "kf_core", *self.words(out, **changed)]
        root = Path(__file__).parents[2]
        return subprocess.Popen(words, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    model = tiny.generator(CARD, torch.float32)
    weights = {**model.modules.state_dict(), **model.adapters.state_dict()}
    save_file(weights, folder / "tiny.safetensors", metadata={CARD_KEY: CARD.to_json()})
    torch.manual_seed(5)
    save_file(WanVAE(dim=4).state_dict(), folder / "tiny-vae.safetensors")
    return folder


@pytest.fixture
def files(networks, tmp_path) -> Files:
    for name in ("tiny.safetensors", "tiny-vae.safetensors"):
        (tmp_path / name).symlink_to(networks / name)
    Image.fromarray(data.astronaut()[:256, 100:356]).save(tmp_path / "portrait.png")
    write_voice(tmp_path / "voice.wav", 1.5)
    return Files(tmp_path)


def write_voice(path: Path, seconds: float, rate: int = 16000, loudness: float = 0.3) -> None:
    moments = np.arange(round(seconds * rate)) / rate
    sound = loudness * np.sin(2 * np.pi * 300 * moments) * np.sin(2 * np.pi * 3 * moments)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def write_three_silent_hours(path: Path) -> None:
    """A sparse file: hours of sound that take no room."""
    write_voice(path, 0.0)
    header = bytearray(path.read_bytes())
    header[4:8], header[40:44] = (36 + THREE_HOURS).to_bytes(4, "little"), THREE_HOURS.to_bytes(4, "little")
    path.write_bytes(header)
    os.truncate(path, len(header) + THREE_HOURS)


def made(path: Path) -> torch.Tensor:
    return torch.stack(list(pictures(path)))


# ---- what it makes ----


def test_a_portrait_and_a_voice_become_a_video_as_long_as_the_voice(files, capsys):
    assert files.animate() == 0
    facts = probe(files.folder / "out.mp4")
    assert facts.pictures == 24 and facts.seconds == 1.5 and abs(facts.sound_seconds - 1.5) < 1e-3
    assert (facts.width, facts.height, facts.fps) == (32, 32, 16)
    assert "AI-generated" in facts.metadata["comment"] and "tiny, seed 0" in facts.metadata["comment"]
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("FPS", "first frame", "precision    float32", "out.mp4: 1.50 s, 24 pictures"))
    assert not (files.folder / "out.mp4.resume").exists()


def test_a_duration_beyond_the_voice_goes_on_in_silence(files):
    assert files.animate(duration=2.2) == 0
    facts = probe(files.folder / "out.mp4")
    assert facts.pictures == 36 and abs(facts.sound_seconds - facts.seconds) < 1e-3


def test_without_a_voice_a_duration_is_enough(files):
    assert files.animate(audio=None, duration=0.5, script="smile") == 0
    assert probe(files.folder / "out.mp4").pictures == 8


def test_a_model_that_remembers_every_frame_gets_memory_for_all(files):
    forgetless = replace(CARD, rollout=replace(CARD.rollout, window=None, max_frames=3))
    with safe_open(files.folder / "tiny.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, files.folder / "all.safetensors", metadata={CARD_KEY: forgetless.to_json()})
    assert files.animate(checkpoint=files.folder / "all.safetensors", vae=files.folder / "tiny-vae.safetensors") == 0
    assert probe(files.folder / "out.mp4").pictures == 24


def test_the_words_change_the_video(files):
    short = dict(duration=0.5, quiet=True)
    changes = {"seed": 1, "steps": 1, "script": "smile", "motion_strength": 2, "audio_strength": 0}
    assert files.animate("plain.mp4", **short) == 0 and files.animate("again.mp4", **short) == 0
    plain = made(files.folder / "plain.mp4")
    assert torch.equal(made(files.folder / "again.mp4"), plain)
    for name, value in changes.items():
        assert files.animate(f"{name}.mp4", **short, **{name: value}) == 0
        assert not torch.equal(made(files.folder / f"{name}.mp4"), plain), name
    assert files.animate("size.mp4", **short, width=48, height=64) == 0
    assert (probe(files.folder / "size.mp4").width, probe(files.folder / "size.mp4").height) == (48, 64)


def test_a_tiny_decoder_makes_other_pictures_of_the_same_latents_as_many(files):
    torch.manual_seed(0)
    save_file(TinyVAE("model", widths=(12, 8, 6, 4)).state_dict(), files.folder / "taew2_1.safetensors")
    assert files.animate("plain.mp4") == 0 and files.animate("tiny.mp4", decoder=files.folder / "taew2_1.safetensors") == 0
    facts = probe(files.folder / "tiny.mp4")
    assert (facts.pictures, facts.width, facts.height) == (24, 32, 32)
    assert not torch.equal(made(files.folder / "tiny.mp4"), made(files.folder / "plain.mp4"))


def test_another_number_of_steps_is_spaced_as_the_models_own_are():
    chosen = argparse.Namespace(method="own", steps=4, guidance=None)
    plain = settings_for(chosen, wan_t2v())
    assert plain.schedule == few_steps(4, 8.0) and plain.guidance == 6 and not plain.renoise
    assert settings_for(chosen, self_forcing()) == self_forcing().rollout
    off = argparse.Namespace(method="knot-forcing", steps=None, guidance=1.0)
    assert settings_for(off, wan_t2v()) == replace(wan_t2v().rollout, guidance=1.0)


def test_a_control_video_leads_through_a_module_and_is_not_used_without_one(files, capsys):
    torch.manual_seed(2)
    module = Vace(dim=CARD.dim, ffn_dim=CARD.ffn_dim, heads=CARD.heads, blocks=3)
    save_file(module.state_dict(), files.folder / "vace.safetensors", metadata={"format": "pt"})
    assert files.animate("plain.mp4", duration=0.5, quiet=True) == 0
    words = dict(duration=0.5, quiet=True, control=files.folder / "plain.mp4", control_module=files.folder / "vace.safetensors")
    assert files.animate("led.mp4", **words) == 0 and files.animate("weak.mp4", **words, control_strength=0) == 0
    restarted = latents_of(files, "restarted", **words, control_restarts=True)
    assert (restarted - latents_of(files, "continued", **words)).norm() < 1e-4 * restarted.norm()
    plain = made(files.folder / "plain.mp4")
    assert torch.equal(made(files.folder / "weak.mp4"), plain) and not torch.equal(made(files.folder / "led.mp4"), plain)
    capsys.readouterr()
    assert files.animate("unled.mp4", **words | {"control_module": None}) == 0
    assert "no VACE module loaded" in capsys.readouterr().err and torch.equal(made(files.folder / "unled.mp4"), plain)


def latents_of(files: Files, name: str, **words) -> torch.Tensor:
    """What a command drew: [1, 16, f, h, w]."""
    assert files.animate(f"{name}.mp4", **words, spool=files.folder / name) == 0
    (file,) = (files.folder / name).iterdir()
    kept = Spool(files.folder / name, file.stem)
    return torch.cat([kept.read(index).latents for index in range(len(kept))], dim=2)


@pytest.mark.parametrize("seconds", [0.05, 1e-4])
def test_a_moment_of_sound_gives_a_moment_of_video(files, seconds):
    write_voice(files.folder / "voice.wav", seconds)
    assert files.animate() == 0
    assert probe(files.folder / "out.mp4").pictures == 1


def test_silence_is_a_voice_too(files):
    write_voice(files.folder / "voice.wav", 0.5, loudness=0)
    assert files.animate() == 0 and probe(files.folder / "out.mp4").pictures == 8


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "animated", "RGBA"])
def test_a_portrait_of_any_kind_will_do(files, mode):
    image, path = Image.open(files.folder / "portrait.png"), files.folder / "other.tiff"
    if mode == "I;16":
        Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257).save(path)
    elif mode == "animated":
        path = path.with_suffix(".gif")
        image.save(path, save_all=True, append_images=[image.rotate(90)])
    else:
        image.convert(mode).save(path)
    assert files.animate(portrait=path, duration=0.1) == 0


# ---- what is wrong is said in one sentence ----


def refusal(files: Files, capsys, **changed) -> str:
    """The one sentence of an `animate` that fails."""
    capsys.readouterr()
    assert files.animate(**changed) == 1
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line and not line.startswith("Note: ") and "%|" not in line]
    assert len(lines) == 1 and not printed.out, printed
    return lines[0]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (dict(portrait="none.png"), "does not exist"),
        (dict(audio="none.mp3"), "no audio file at"),
        (dict(checkpoint="none.pt"), "does not exist"),
        (dict(pose="none.mp4"), "does not exist"),
        (dict(audio="{folder}/portrait.png"), "no sound"),
        (dict(portrait="{folder}/voice.wav"), "not a picture"),
        (dict(checkpoint="{folder}/portrait.png"), "is a PNG picture"),
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
    assert "8000x200" in refusal(files, capsys, portrait=folder / "wide.png")
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
    assert "is cut off" in capsys.readouterr().err and 14 <= probe(files.folder / "out.mp4").pictures <= 18


def test_a_word_mistyped_is_said_with_the_way_to_help(files, capsys):
    for words, sentence in ((["animte"], "invalid choice"), (["animate"], "required: --portrait"), (files.words(seed="x"), "invalid int")):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 2 and sentence in capsys.readouterr().err


# ---- nothing that was made is lost ----


def test_a_video_that_is_there_is_not_written_over_by_mistake(files, capsys):
    assert files.animate(duration=0.5) == 0
    before = (files.folder / "out.mp4").read_bytes()
    assert "is there already" in refusal(files, capsys)
    assert (files.folder / "out.mp4").read_bytes() == before
    assert files.animate(overwrite=True) == 0 and probe(files.folder / "out.mp4").pictures == 24


def test_a_video_of_another_recipe_is_not_continued(files, capsys):
    assert files.animate(duration=0.5) == 0
    assert "begun with another" in refusal(files, capsys, resume=True, seed=8)
    assert probe(files.folder / "out.mp4").pictures == 8


def test_a_finished_video_is_continued_when_more_is_asked_for(files):
    assert files.animate("whole.mp4", quiet=True) == 0
    assert files.animate(duration=0.7, quiet=True) == 0 and probe(files.folder / "out.mp4").pictures == 12
    assert files.animate(resume=True, quiet=True) == 0 and files.animate(resume=True, quiet=True) == 0
    assert probe(files.folder / "out.mp4").pictures == 24
    assert (made(files.folder / "out.mp4") - made(files.folder / "whole.mp4")).abs().max() < 0.1  # other fragments, other losses


def test_kept_latents_are_read_again(files):
    assert files.animate("a.mp4", spool=files.folder / "kept", quiet=True) == 0
    (kept,) = (files.folder / "kept").iterdir()
    before = kept.stat().st_size
    assert files.animate("b.mp4", spool=files.folder / "kept", quiet=True) == 0 and kept.stat().st_size == before
    assert torch.equal(made(files.folder / "a.mp4"), made(files.folder / "b.mp4"))


def wait_for(process: subprocess.Popen, path: Path, count: int, seconds: float = 600) -> None:
    """Until `count` pictures are in the file."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        assert process.poll() is None, process.stderr.read()
        try:
            if probe(path).pictures >= count:
                return
        except KnotForcingError:
            time.sleep(0.1)
        time.sleep(0.05)
    raise AssertionError(f"{count} pictures were not there after {seconds} s")


def bytes_read(process: psutil.Process) -> int:
    """All that it has read so far, wherever the bytes came from; 0 where the system does not count it (macOS)."""
    return getattr(process.io_counters(), "read_chars", 0) if hasattr(process, "io_counters") else 0


@pytest.mark.slow
def test_three_hours_start_at_once_stay_flat_and_survive_a_kill(files):
    out = files.folder / "out.mp4"
    write_three_silent_hours(files.folder / "voice.wav")
    process = files.subprocess("out.mp4")
    watched = psutil.Process(process.pid)
    try:
        wait_for(process, out, 12)
        assert bytes_read(watched) < THREE_HOURS, "it plays before the voice was read through, its programs included"
        wait_for(process, out, 120)
        before, read = watched.memory_info().rss, bytes_read(watched)
        wait_for(process, out, 500)
        assert watched.memory_info().rss - before < 20e6
        assert bytes_read(watched) - read < THREE_HOURS / 10, "and goes on without reading far ahead"
    finally:
        process.kill()
        process.wait()
    there = probe(out).pictures
    assert there >= 500 and len(made(out)) == there
    seconds = (there + 20) / 16
    assert files.animate(resume=True, duration=seconds, quiet=True) == 0
    facts = probe(out)
    assert facts.pictures == there + 20 and abs(facts.sound_seconds - facts.seconds) < 1e-3
    assert files.animate("whole.mp4", duration=seconds, quiet=True) == 0
    assert torch.equal(made(out), made(files.folder / "whole.mp4"))


@posix
@pytest.mark.slow
def test_ctrl_c_finishes_the_file_and_says_how_to_go_on(files):
    out = files.folder / "out.mp4"
    process = files.subprocess("out.mp4", duration=600)
    wait_for(process, out, 12)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "can be played. Continue with:" in said and said.rstrip().endswith("--resume")
    facts = probe(out)
    assert abs(facts.sound_seconds - facts.seconds) < 1e-3 and (files.folder / "out.mp4.resume").exists()
    assert files.animate(resume=True, duration=facts.seconds + 1, quiet=True) == 0
    assert probe(out).pictures == facts.pictures + 16


@posix
@pytest.mark.slow
def test_a_full_disk_is_said_and_what_was_made_plays(files):
    import resource

    words = [sys.executable, "-m", "kf_core", *files.words(duration=600, quiet=True)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    done = subprocess.run(words, cwd=Path(__file__).parents[2], preexec_fn=limit, capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Note: ")]
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert "The disk is full" in lines[0] or "Make room" in lines[0]
    assert len(made(files.folder / "out.mp4")) >= 9  # the first chunk at least; on a slow machine the state is the first that does not fit


# ---- the other commands ----


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


def test_weights_in_8_bit_floats_draw_about_the_same_and_say_what_that_is_good_for(files, capsys):
    capsys.readouterr()
    assert files.animate("plain.mp4", duration=0.5) == 0 and "8-bit" not in capsys.readouterr().err
    assert files.animate("small.mp4", duration=0.5, fp8=True) == 0 and "cpu does not multiply them" in capsys.readouterr().err
    plain, small = (made(files.folder / name) for name in ("plain.mp4", "small.mp4"))
    assert 0 < float((plain - small).abs().mean()) < 0.05


def test_without_a_compiler_compiling_is_refused_in_a_sentence_and_the_video_made(files, capsys):
    torch._dynamo.reset()
    with fresh_cache(), torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert files.animate("plain.mp4", duration=0.5, compile=True) == 0
    assert "Nothing is compiled: there is no working compiler for cpu" in capsys.readouterr().err


def test_bench_times_the_stream(files, capsys):
    words = ["bench", "--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--chunks", "4"]
    assert main([*words, "--json", str(files.folder / "a.json")]) == 0
    assert "pictures a second" in capsys.readouterr().out
    assert len(json.loads((files.folder / "a.json").read_text())["fp32"]["chunks"]) == 4


def test_a_long_run_is_measured_and_drawn(files, capsys):
    numbers, film, picture = (files.folder / name for name in ("hours.json", "hours.mp4", "hours.svg"))
    words = ["bench", "--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--seconds", "4"]
    assert main([*words, "--film", str(film), "--json", str(numbers)]) == 0
    assert "64 pictures" in capsys.readouterr().out and probe(film).pictures == 64
    assert main(["plot", str(numbers), str(picture)]) == 0
    assert "<svg" in picture.read_text(encoding="utf-8") and "1 chunk at most" in capsys.readouterr().out
    assert main(["plot", str(film), str(picture)]) == 1 and "holds no long run" in capsys.readouterr().err


def test_bench_takes_random_weights_of_a_published_size_and_says_how_near_the_limit_it_comes(files, capsys):
    words = ["bench", "--preset", "small", "--size", "32x48", "--tiny-vae", "--precision", "fp32", "--chunks", "2"]
    assert main([*words, "--json", str(files.folder / "b.json")]) == 0
    assert "% of the limit" in capsys.readouterr().out
    limit = json.loads((files.folder / "b.json").read_text())["fp32"]["limit"]
    assert limit["least_seconds"] > 0 and limit["operations"] > 1e9
    assert main(["bench", "--preset", "small", "--size", "30x48"]) != 0
    assert "multiples of 16" in capsys.readouterr().err


def test_bench_measures_each_accelerator_with_its_error_by_the_command_that_a_card_takes(files, capsys):
    """Without a compiler here, because compiling takes long; what compiled blocks draw is held elsewhere."""
    torch._dynamo.reset()
    words = ["bench", "--preset", "small", "--size", "32x32", "--tiny-vae", "--precision", "fp32", "--chunks", "1", "--each"]
    with fresh_cache(), torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert main([*words, "--decoding", "in-turn", "--json", str(files.folder / "each.json")]) == 0
    assert "off the plain forward, fp8: " in capsys.readouterr().out
    numbers = json.loads((files.folder / "each.json").read_text())
    off = {name: numbers[name]["difference"]["root_mean_square"] for name in ("fp32", "fp32 compile", "fp32 fp8", "fp32 compile fp8")}
    assert off["fp32"] == off["fp32 compile"] < 1e-5 < 1e-3 < off["fp32 fp8"] == off["fp32 compile fp8"] < 0.1


def test_help_shows_a_creator_the_way(capsys):
    for words in (["--help"], *([name, "--help"] for name in ("animate", "inspect", "evaluate", "bench", "presets", "plot"))):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 0 and len(capsys.readouterr().out) > 200
