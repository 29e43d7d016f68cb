"""kf-tiny as a newcomer meets it: everything left as it is, the portrait and the voice that come with the pack."""

import shutil

import pytest

from kf_core.media.playback import probe

from .conftest import talking
from .place import PACK

ASSETS = PACK / "kf_core" / "assets"


def test_the_bundled_model_makes_a_speaking_portrait(host):
    if not (ASSETS / "kf-tiny.safetensors").exists() or not (ASSETS / "kf-tiny-vae.safetensors").exists():
        pytest.skip("KF-TINY IS NOT IN kf_core/assets: train it, or take a checkout that has it")
    shutil.copy(ASSETS / "example-portrait.png", host.folder / "input")
    shutil.copy(ASSETS / "example-voice.wav", host.folder / "input")
    bundled = {"model_name": "kf-tiny (bundled)", "vae_name": "kf-tiny (bundled)"}
    prompt = talking(
        prefix="bundled",
        load=bundled,
        image={"image": "example-portrait.png"},
        voice={"audio": "example-voice.wav"},
        sampler={"seconds": 2.0},
    )
    ran = host.run(prompt)
    assert ran.succeeded, ran.messages[-1]
    video, frames = ran.outputs["decode"]
    assert len(frames) == 32 and probe(video.get_stream_source()).sound_seconds == pytest.approx(2.0, abs=0.05)
    portrait = ran.outputs["anchor"][1]
    assert ((frames - portrait) ** 2).mean() < 0.02, "it looks like the portrait"
    assert (frames[1:] - frames[:-1]).abs().mean() > 1e-4, "it moves"
