"""What makes `animate` faster where the machine can, and what is said where it cannot."""

import argparse

import torch
from torch._inductor.utils import fresh_cache

from kf_core.cli import model
from kf_core.cli.main import main

from .commands import made


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


def test_without_a_card_there_are_no_graphs_a_sentence_says_so_and_the_video_is_the_same(files, capsys):
    assert files.animate("plain.mp4", duration=0.5) == 0
    capsys.readouterr()
    assert files.animate("graphs.mp4", duration=0.5, graphs=True) == 0
    assert "Note: No CUDA graphs are recorded: they need an NVIDIA or AMD card, and this runs on cpu." in capsys.readouterr().err
    assert torch.equal(made(files.folder / "plain.mp4"), made(files.folder / "graphs.mp4"))


def test_who_draws_on_the_processor_beside_a_graphics_card_is_told_of_it(files, capsys, monkeypatch):
    said = "Note: This runs on the processor, and there is a graphics card: --device mps uses it."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for is_there in (True, False):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=is_there: there)
        capsys.readouterr()
        assert files.animate(f"{is_there}.mp4", duration=0.5, quiet=True) == 0
        assert (said in capsys.readouterr().err) == is_there
        words = ["bench", "--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--seconds", "0.1"]
        assert main(words) == 0 and capsys.readouterr().err.count(said) == is_there
    assert torch.equal(made(files.folder / "True.mp4"), made(files.folder / "False.mp4"))


def test_what_accelerates_is_said_in_the_order_in_which_it_is_done(files, capsys):
    """8-bit floats first, because what is compiled and recorded must be they."""
    capsys.readouterr()
    assert files.animate("all.mp4", duration=0.5, graphs=True, fp8=True) == 0
    said = capsys.readouterr().err
    assert 0 < said.index("8-bit floats") < said.index("No CUDA graphs")


def test_a_preset_counts_weights_in_8_bit_floats_as_what_they_take(files):
    parser = argparse.ArgumentParser()
    model.add_arguments(parser)
    words = ["--checkpoint", str(files.folder / "tiny.safetensors"), "--precision", "fp32", "--tune", "8gb"]
    wide, small = (model.load_model(parser.parse_args([*words, *more])) for more in ([], ["--fp8"]))
    assert small.tuning.needed < wide.tuning.needed
