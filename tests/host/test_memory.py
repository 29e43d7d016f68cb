"""Memory does not grow with the length of the video, in one prompt or in many."""

import os

import psutil
import pytest

from kf_core.media.playback import probe

from .conftest import talking
from .test_segments import segments

MINUTES = float(os.environ.get("KF_SOAK_MINUTES", "10"))
MOST_GROWTH = 100 * 2**20


@pytest.mark.soak
def test_minutes_in_one_prompt(host):
    process, after_half_a_minute = psutil.Process(), []

    def watch(text: str) -> None:
        if float(text.split(" of ")[0]) > 30:
            after_half_a_minute.append(process.memory_info().rss)

    host.listener = lambda text: watch(text) if " s, " in text and " of " in text and text[0].isdigit() else None
    ran = host.run(talking(seed=40, prefix="soak", sampler={"seconds": 60 * MINUTES}, decode={"keep_pictures": False}))
    host.listener = None
    assert ran.succeeded, ran.messages[-1]
    assert probe(ran.outputs["decode"][0].get_stream_source()).pictures == round(960 * MINUTES)
    assert max(after_half_a_minute) - after_half_a_minute[0] < MOST_GROWTH


@pytest.mark.soak
def test_a_minute_in_segments_through_an_upscaler(host):
    process, used = psutil.Process(), []
    for index in range(15):
        prompt = segments(index, prefix="soak-joined", seconds=4.0)
        prompt["sampler"]["inputs"]["seconds"] = 60.0
        assert host.run(prompt).succeeded
        used.append(process.memory_info().rss)
    facts = probe(next((host.folder / "output").glob("soak-joined_*.mp4")))
    assert facts.pictures == 960 and facts.sound_seconds == pytest.approx(60, abs=0.05)
    assert max(used) - used[2] < MOST_GROWTH
