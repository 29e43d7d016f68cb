"""What comes with the pack, through the node that hands it out: a first run needs no file of one's own."""

import pytest

from kf_core.media.playback import probe

from .conftest import also, talking


def test_the_example_is_a_portrait_a_voice_and_a_head_that_moves_as_long(host):
    ran = host.run(
        {
            "example": {"class_type": "KnotForcingExample", "inputs": {}},
            "look": {"class_type": "PreviewImage", "inputs": {"images": ["example", 0]}},
        }
    )
    assert ran.succeeded, ran.messages[-1]
    portrait, voice, poses = ran.outputs["example"]
    assert portrait.shape == (1, 512, 512, 3)
    assert voice["waveform"].shape[:2] == (1, 1) and voice["sample_rate"] == 16000
    seconds = voice["waveform"].shape[-1] / 16000
    assert len(poses) / 16 == pytest.approx(seconds, abs=1 / 16)
    assert 0 <= poses.min() and poses.max() <= 1 and poses.amax((1, 2, 3)).min() > 0.5, "a head is seen in every image"
    assert (poses[1:] - poses[:-1]).abs().mean() > 1e-4, "it moves"


def test_the_example_drives_a_stream(host):
    prompt = also(
        talking(prefix="example", anchor={"portrait": ["example", 0]}, audio={"audio": ["example", 1]}, sampler={"driving": ["pose", 0]}),
        example=("KnotForcingExample", {}),
        pose=(
            "KnotForcingPose",
            {
                "driving": ["audio", 0],
                "pose_images": ["example", 2],
                "pose_fps": 16.0,
                "yaw": 0.0,
                "pitch": 0.0,
                "roll": 0.0,
                "strength": 1.0,
            },
        ),
    )
    prompt["sampler"]["inputs"]["seconds"] = 1.0
    ran = host.run(prompt)
    assert ran.succeeded, ran.messages[-1]
    assert probe(ran.outputs["decode"][0].get_stream_source()).frames == 16
