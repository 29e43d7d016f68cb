"""`bench` and `plot`: how fast this machine is, how near its limit, and whether a long run stays flat."""

import argparse
import json
import re

import pytest
import torch
from torch._inductor.utils import fresh_cache

from kf_core.cli import bench
from kf_core.cli.main import main
from kf_core.media.playback import probe
from kf_core.metrics.random_model import PRESETS
from kf_core.schedule import few_steps

SMALL = ["--preset", "small", "--size", "32x32", "--tiny-vae"]


def test_bench_times_the_stream(files, capsys):
    words = ["bench", "--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--chunks", "4"]
    assert main([*words, "--json", str(files.folder / "a.json")]) == 0
    assert "frames a second" in capsys.readouterr().out
    assert len(json.loads((files.folder / "a.json").read_text())["fp32"]["chunks"]) == 4


def test_a_long_run_is_measured_and_drawn(files, capsys):
    numbers, film, frame = (files.folder / name for name in ("hours.json", "hours.mp4", "hours.svg"))
    words = ["bench", "--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--seconds", "4"]
    assert main([*words, "--film", str(film), "--json", str(numbers)]) == 0
    assert "64 frames" in capsys.readouterr().out and probe(film).frames == 64
    assert main(["plot", str(numbers), str(frame)]) == 0
    assert "<svg" in frame.read_text(encoding="utf-8") and "1 chunk at most" in capsys.readouterr().out
    assert main(["plot", str(film), str(frame)]) == 1 and "holds no long run" in capsys.readouterr().err


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
    printed = capsys.readouterr()
    assert "off the plain forward, compile: " in printed.out and "Nothing is compiled" in printed.err
    numbers = json.loads((files.folder / "each.json").read_text())
    off = {name: numbers[name]["difference"]["root_mean_square"] for name in numbers if name != "machine"}
    assert list(off) == ["fp32", "fp32 compile"]
    assert off["fp32"] == off["fp32 compile"] < 1e-5


def chosen(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(list(words))


def test_a_preset_is_rolled_out_and_decoded_as_the_options_say(capsys):
    own = PRESETS["small"].card.rollout
    words = ["--steps", "2", "--guidance", "3", "--attention", "flash", "--tune", "mps", "--width", "32", "--height", "32"]
    stream, tuning = bench.stream_of(chosen("--preset", "small", *words), "fp32")
    assert stream.settings.schedule == few_steps(2, own.shift) and stream.settings.guidance == 3
    assert stream.decoder.at_once == 1 and tuning.preset == "mps" and not tuning.decode_plan.overlap_decode
    said = capsys.readouterr().err
    assert "The attention 'flash' needs an NVIDIA or AMD card" in said and "Preset mps: the VAE, a latent at a time" in said
    plain, _ = bench.stream_of(chosen("--preset", "small", "--tiny-vae"), "fp32")
    assert plain.settings == own and plain.decoder.at_once is None and not capsys.readouterr().err


def test_a_model_is_decoded_as_its_tuning_says(files):
    stream, tuning = bench.stream_of(chosen("--checkpoint", str(files.folder / "tiny.safetensors"), "--tune", "mps"), "fp32")
    assert stream.decoder.at_once == 1 and not tuning.decode_plan.overlap_decode


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--chunks", "0"], "0 chunks show nothing"),
        (["--chunks", "2", "--film", "a.mp4"], "--film: only a run of --seconds"),
        (["--seconds", "1", "--each"], "--each: a run of --seconds is one run"),
        (["--plain", "--compile", "--each"], "--each, --compile: the plain forward"),
        ([*SMALL, "--decoder", "small", "--checkpoint", "a.safetensors"], "--checkpoint, --decoder: a --preset has random weights"),
        (["--tiny-vae"], "--tiny-vae: it is the decoder of a --preset"),
        ([*SMALL, "--text-encoder", "umt5"], "--text-encoder: the stream that is measured has no words"),
        ([*SMALL, "--steps", "0"], "0 denoising steps"),
        ([*SMALL, "--decoder-device", "cuda:77"], "device cuda:77 is not there"),
        ([*SMALL, "--device", "cuda:77"], "device cuda:77 is not there"),
        (["--preset", "small", "--width", "50"], "width of 50 .* multiple of 16"),
    ],
)
def test_what_bench_would_not_measure_is_refused_in_one_sentence(capsys, words, sentence):
    assert main(["bench", *words]) == 1
    said = capsys.readouterr().err
    assert re.search(sentence, said) and said.count("\n") == 1


def test_a_length_is_given_in_chunks_or_in_seconds(capsys):
    with pytest.raises(SystemExit) as end:
        main(["bench", "--chunks", "3", "--seconds", "3"])
    assert end.value.code == 2 and "not allowed with" in capsys.readouterr().err


def test_a_long_run_by_the_plain_forward_says_so(files, capsys):
    words = ["bench", "--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--seconds", "1", "--plain"]
    numbers = files.folder / "plain.json"
    assert main([*words, "--json", str(numbers)]) == 0
    assert json.loads(numbers.read_text())["facts"]["model"] == "tiny, 32x32, float32, by the plain forward"
