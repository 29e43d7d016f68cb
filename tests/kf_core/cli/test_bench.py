"""`bench` and `plot`: how fast this machine is, how near its limit, and whether a long run stays flat."""

import json

import torch
from torch._inductor.utils import fresh_cache

from kf_core.cli.main import main
from kf_core.media.playback import probe


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
    printed = capsys.readouterr()
    assert "off the plain forward, fp8: " in printed.out
    assert printed.err.count("There are no CUDA graphs on cpu, so --each leaves them out") == 1
    numbers = json.loads((files.folder / "each.json").read_text())
    off = {name: numbers[name]["difference"]["root_mean_square"] for name in numbers if name != "machine"}
    assert list(off) == ["fp32", "fp32 compile", "fp32 fp8", "fp32 compile fp8"]
    assert off["fp32"] == off["fp32 compile"] < 1e-5 < 1e-3 < off["fp32 fp8"] == off["fp32 compile fp8"] < 0.1
