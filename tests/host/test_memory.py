"""Memory does not grow with the length of the video, in one prompt or in many."""

import math
import os
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from kf_core.media.playback import frames, probe
from kf_core.memory import held, resident

from .conftest import also, talking
from .place import PACK
from .upscaler import write_upscaler

ASSETS = PACK / "kf_core" / "assets"
SECONDS, SIDE = 64.0, 128  # SIDE: of the frames of kf-tiny
MINUTES = float(os.environ.get("KF_SOAK_MINUTES", "10"))
MOST_GROWTH = 100 * 2**20


@pytest.mark.soak
def test_minutes_in_one_prompt(host):
    after_half_a_minute, each_minute = [], []

    def watch(text: str) -> None:
        host.events.clear()  # which would grow
        if (seconds := float(text.split(" of ")[0])) > 30:
            after_half_a_minute.append(resident())
            if seconds > 30 + 60 * len(each_minute):
                each_minute.append(held())

    host.listener = lambda text: watch(text) if " s, " in text and " of " in text and text[0].isdigit() else None
    ran = host.run(talking(seed=40, prefix="soak", sampler={"seconds": 60 * MINUTES}, decode={"keep_frames": False}))
    host.listener = None
    assert ran.succeeded, ran.messages[-1]
    assert probe(ran.outputs["decode"][0].get_stream_source()).frames == round(960 * MINUTES)
    print(f"resident MiB: {after_half_a_minute[0] / 2**20:.0f} at 30 s, {max(after_half_a_minute) / 2**20:.0f} at most after")
    print(f"with freed pages given back, each minute: {[round(bytes / 2**20) for bytes in each_minute]}")
    assert max(after_half_a_minute) - after_half_a_minute[0] < MOST_GROWTH


@pytest.mark.soak
def test_more_than_a_minute_in_segments_through_an_upscaler_is_the_stream_larger(host):
    """kf-tiny, because frames that H.264 keeps can be compared."""
    for name in ("example-portrait.png", "example-voice.wav"):
        shutil.copy(ASSETS / name, host.folder / "input")
    write_upscaler(host.folder / "models" / "upscale_models" / "twice.safetensors", times=2)
    whole = also(
        talking(
            seed=41,
            prefix="soak-whole",
            load={"model_name": "kf-tiny (bundled)", "vae_name": "kf-tiny (bundled)"},
            image={"image": "example-portrait.png"},
            voice={"audio": "example-voice.wav"},
            sampler={"seconds": SECONDS},
            decode={"keep_frames": False},
        )
    )
    after_each = []
    for index in range(math.ceil(SECONDS / 4)):
        ran = host.run(upscaled(whole, index))
        assert ran.succeeded, ran.messages[-1]
        after_each.append(resident())
    print(f"resident MiB after each segment: {[round(bytes / 2**20) for bytes in after_each]}")

    joined = next((host.folder / "output").glob("soak-joined_*.mp4"))
    facts = probe(joined)
    assert (facts.frames, facts.width, facts.height) == (round(16 * SECONDS), 2 * SIDE, 2 * SIDE)
    assert facts.sound_seconds == pytest.approx(SECONDS, abs=0.05)
    assert {after - before for before, after in pairwise(times_of(joined))} == {Fraction(1, 16)}, "no gap"
    assert host.run(whole).succeeded
    stream = next((host.folder / "output").glob("soak-whole_*.mp4"))
    off, beside = [], []
    true = list(frames(stream))
    for index, made in enumerate(frames(joined)):
        smaller = 1 - made.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
        off.append((smaller - true[index]).abs().mean())
        beside.append(min((smaller - true[other]).abs().mean() for other in (index - 1, index + 1) if 0 <= other < len(true)))
    print(f"from the stream's frame {max(off):.4f} at most, from the next one {min(beside):.4f} at least")
    assert max(off) < 0.02, "the frames of the stream"
    assert sum(one < other for one, other in zip(off, beside, strict=True)) > 0.9 * len(off), "each at its place"
    here, there = sound_of(joined), sound_of(stream)
    assert np.abs(here - there).mean() < 0.01 * np.abs(there).max(), "and the sound at its own"
    assert max(after_each) - after_each[2] < MOST_GROWTH


def upscaled(whole: dict, index: int) -> dict:
    """Streaming Decode's place taken by Next Segment, an upscaler, a node that works frame by frame, and Append Segment."""
    segment = {"stream": ["sampler", 0], "vae": ["load", 1], "index": index, "seconds": 4.0}
    return also(
        {node: what for node, what in whole.items() if node != "decode"},
        next=("KnotForcingNextSegment", segment),
        upscaler=("UpscaleModelLoader", {"model_name": "twice.safetensors"}),
        larger=("ImageUpscaleWithModel", {"upscale_model": ["upscaler", 0], "image": ["next", 0]}),
        inverted=("ImageInvert", {"image": ["larger", 0]}),
        join=("KnotForcingAppendSegment", {"images": ["inverted", 0], "segment": ["next", 2], "filename_prefix": "soak-joined"}),
    )


def times_of(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as file:
        return [frame.pts * frame.time_base for frame in file.decode(video=0)]


def sound_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)
