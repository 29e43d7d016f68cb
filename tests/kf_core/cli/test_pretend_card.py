"""The whole way on a device that is not the processor, where there is no card: everything must be where it is used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.__main__ import main as laboratory
from lab.kf_tiny.subjects import seat
from lab.protocols.command import FIRST_SEED

from ...pretend_card import skip_where_it_cannot_be_built
from .commands import made

pytestmark = pytest.mark.slow  # the device is built once, in minutes
ROOT = Path(__file__).parents[3]
MISPLACED = """
import torch
from tests.pretend_card import plug_in
plug_in()
card = torch.ones(2, 3, device="pretend")
for misplaced in (lambda: card + torch.ones(3), lambda: card @ torch.ones(3, 2), lambda: torch.cat((card, torch.ones(2, 3))),
                  lambda: torch.nn.functional.conv1d(card, torch.ones(1, 2, 1)), lambda: torch.ones(2, 3)[card.long()]):
    try:
        misplaced()
    except RuntimeError as problem:
        print("refused:", problem)
print("allowed:", (card * torch.tensor(2.0))[torch.tensor([1])].cpu().tolist())
"""


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    skip_where_it_cannot_be_built()


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_what_lies_elsewhere_is_refused():
    lines = run("-c", MISPLACED).splitlines()
    assert [line.split(":")[0] for line in lines] == ["refused"] * 5 + ["allowed"]
    assert lines[-1] == "allowed: [[2.0, 2.0, 2.0]]"


def test_a_video_made_on_another_device_is_the_same(files):
    driven = {"duration": 1.5, "script": "[00:00-00:01] smile, nod"}
    said = run("-m", "tests.pretend_card", "kf_core", *files.words("card.mp4", device="pretend", **driven))
    assert "float32 on pretend" in said
    assert files.animate("processor.mp4", **driven) == 0
    there, here = made(files.folder / "card.mp4"), made(files.folder / "processor.mp4")
    assert there.shape == here.shape and (there - here).abs().mean() < 1 / 255


def test_protocols_measure_on_another_device(files, monkeypatch):
    seat(FIRST_SEED, 2.0, 32, files.folder)  # without espeak-ng there is nothing to measure
    words = ["--checkpoint", str(files.folder / "tiny.safetensors"), "--vae", str(files.folder / "tiny-vae.safetensors")]
    words += ["--seconds", "2", "--identities", "2", "--variants", "full", "--conditions", "sound only"]
    monkeypatch.setenv("KF_PRECISION", "fp32")  # on both, whatever the processor would choose
    runs = {name: files.folder / name for name in ("there", "here")}
    run("-m", "tests.pretend_card", "lab", "ablation", str(runs["there"]), *words, "--device", "pretend")
    assert "float32 on pretend, " in (runs["there"] / "ablation.md").read_text(encoding="utf-8")
    assert laboratory(["ablation", str(runs["here"]), *words]) == 0
    there, here = (json.loads((folder / "ablation.json").read_text(encoding="utf-8"))["results"] for folder in runs.values())
    assert len(there) == len(here) == 4
    for one, other in zip(there, here, strict=True):  # correlations over so few frames hang on the last digit, and are not compared
        assert one["values"].keys() == other["values"].keys()
        assert one["values"]["PSNR"] == pytest.approx(other["values"]["PSNR"], abs=0.1)
        for name in ("temporal flickering", "identity cosine"):
            assert one["values"][name] == pytest.approx(other["values"][name], abs=0.02)
