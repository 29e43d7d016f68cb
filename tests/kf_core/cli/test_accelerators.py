"""What makes `animate` faster where the machine can, and what is said where it cannot."""

import torch
from torch._inductor.utils import fresh_cache

from kf_core.cli.main import main

from .commands import made


def test_without_a_compiler_compiling_is_refused_in_a_sentence_and_the_video_made(files, capsys):
    torch._dynamo.reset()
    with fresh_cache(), torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert files.animate("plain.mp4", duration=0.5, compile=True) == 0
    assert "Nothing is compiled: there is no working compiler for cpu" in capsys.readouterr().err


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
