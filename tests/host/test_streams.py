"""The five nodes in a real ComfyUI: what comes out, how often, and what is left when somebody presses Cancel."""

import pytest
import torch

from kf_core.media.playback import frames as frames_of
from kf_core.media.playback import probe

from .conftest import also, talking


def test_the_graph_makes_as_many_frames_and_as_much_sound_as_the_voice_lasts(host):
    ran = host.run(talking())
    assert ran.succeeded, ran.messages
    video, frames = ran.outputs["decode"]
    facts = probe(video.get_stream_source())
    assert facts.frames == len(frames) == 32
    assert facts.sound_seconds == pytest.approx(2.0, abs=0.05)
    assert (facts.width, facts.height, facts.fps) == (32, 32, 16)
    assert "AI-generated" in facts.metadata["comment"]


def test_a_second_run_is_cached_and_a_fresh_one_gives_the_same_frames(host):
    first = host.run(talking()).outputs["decode"]
    again = host.run(talking())
    assert again.succeeded and "decode" in again.cached
    host.fresh()
    fresh = host.run(talking(prefix="elsewhere"))
    assert "decode" not in fresh.cached
    assert torch.equal(fresh.outputs["decode"][1], first[1])
    other = host.run(talking(seed=1)).outputs["decode"][1]
    assert not torch.equal(other, first[1])


def test_two_streams_in_one_graph_do_not_disturb_each_other(host):
    alone = [host.run(talking(seed=seed, prefix=f"alone{seed}")).outputs["decode"][1] for seed in (2, 3)]
    host.fresh()
    one, other = talking(seed=2, prefix="both"), talking(seed=3, prefix="both")
    other["sampler"]["inputs"] |= {"anchor": ["anchor", 0], "model": ["load", 0], "driving": ["audio", 0]}
    both = one | {"sampler2": other["sampler"], "decode2": other["decode"]}
    both["decode2"]["inputs"]["stream"] = ["sampler2", 0]
    ran = host.run(both)
    assert torch.equal(ran.outputs["decode"][1], alone[0])
    assert torch.equal(ran.outputs["decode2"][1], alone[1])


def test_a_run_that_is_cancelled_before_its_first_frame_names_no_file_that_is_not_there(host, monkeypatch):
    host.fresh()
    preview = host.of_pack("decoding").preview
    looks = preview.stop_if_cancelled

    def cancelled_at_once():
        host._nodes.interrupt_processing()
        looks()

    monkeypatch.setattr(preview, "stop_if_cancelled", cancelled_at_once)
    stopped = host.run(talking(seed=6, prefix="early", decode={"keep_frames": False}))
    assert stopped.messages[-1][0] == "execution_interrupted" and not list((host.folder / "output").glob("early_*.mp4"))
    assert stopped.said("decode")[-1] == "Stopped before there was an image. Queue again to go on."


def test_cancel_leaves_a_playable_file_and_the_next_run_goes_on(host):
    host.fresh()
    whole = host.run(talking(seed=4, prefix="whole", decode={"keep_frames": False})).outputs["decode"][0].get_stream_source()
    (host.folder / "output" / "knot_forcing" / ".streams").rename(host.folder / "forgotten")
    host.fresh()
    host.cancels_at = "0.6 of 2.0 s"
    try:
        stopped = host.run(talking(seed=4, prefix="stopped", decode={"keep_frames": False}))
    finally:
        host.cancels_at = ""
    assert not stopped.succeeded and stopped.messages[-1][0] == "execution_interrupted"
    path = next((host.folder / "output").glob("stopped_*.mp4"))
    assert stopped.said("decode")[-1] == f"Stopped. 0.6 s are in {path} and can be played. Queue again to go on."
    assert len(list(frames_of(path))) == 9

    went_on = host.run(talking(seed=4, prefix="stopped", decode={"keep_frames": False}))
    assert went_on.succeeded and not any("0.6 of" in line for line in went_on.said("decode"))
    assert probe(path).sound_seconds == pytest.approx(2.0, abs=0.05)
    for made, wanted in zip(frames_of(path), frames_of(whole), strict=True):
        assert torch.equal(made, wanted)


def test_cancel_is_heard_within_one_denoising_step(host, monkeypatch):
    import nodes

    show = host.of_pack("host.preview").Preview
    tell, steps = show.step, []

    def pressed_in_the_second_chunk(self, step) -> None:
        steps.append((step.span.start, step.index))
        if steps[-1] == (3, 0):
            nodes.interrupt_processing()
        tell(self, step)

    monkeypatch.setattr(show, "step", pressed_in_the_second_chunk)
    host.fresh()
    stopped = host.run(talking(seed=9, prefix="within", decode={"keep_frames": False}))
    assert stopped.messages[-1][0] == "execution_interrupted"
    assert steps == [(0, 0), (0, 1), (3, 0)], "no step after the one in which it was pressed"
    path = next((host.folder / "output").glob("within_*.mp4"))
    assert len(list(frames_of(path))) == 9 and str(path) in stopped.said("decode")[-1]


def test_what_is_there_already_is_not_made_again(host):
    host.run(talking(seed=5, prefix="there", decode={"keep_frames": False}))
    path = next((host.folder / "output").glob("there_*.mp4"))
    before = path.stat().st_mtime_ns
    host.fresh()
    again = host.run(talking(seed=5, prefix="there", decode={"keep_frames": False}))
    assert "there already" in again.said("decode")[-1] and path.stat().st_mtime_ns == before


def test_frames_are_seen_while_it_runs(host):
    host.fresh()
    ran = host.run(talking(seed=6, prefix="seen"))
    lines = ran.said("decode")
    assert any(line.startswith("0.6 of 2.0 s") for line in lines) and "FPS" in lines[-1]
    progress = [data["nodes"]["decode"] for event, data in ran.events if event == "progress_state" and "decode" in data["nodes"]]
    values = [state["value"] for state in progress if state["state"] == "running"]
    assert values == sorted(values) and progress[-1]["max"] == 32


def test_a_lora_changes_the_result_and_without_it_all_is_as_before(host):
    plain = host.run(talking(seed=7, prefix="lora")).outputs["decode"][1]
    changed = also(
        talking(seed=7, prefix="lora", sampler={"model": ["lora", 0]}),
        lora=("LoraLoaderModelOnly", {"model": ["load", 0], "lora_name": "random.safetensors", "strength_model": 1.0}),
    )
    assert not torch.equal(host.run(changed).outputs["decode"][1], plain)
    host.fresh()
    assert torch.equal(host.run(talking(seed=7, prefix="again")).outputs["decode"][1], plain)


@pytest.mark.parametrize("weights", ["default", "fp8_e4m3fn"])
def test_a_model_that_the_host_loaded_runs(host, weights):
    prompt = also(
        talking(
            prefix="host",
            load={"model": ["unet", 0]},
            anchor={"width": 32, "height": 32},
            sampler={"seconds": 0.5, "steps": 1},
        ),
        unet=("UNETLoader", {"unet_name": "self_forcing_dmd.safetensors", "weight_dtype": weights}),
    )
    ran = host.run(prompt)
    assert ran.succeeded, ran.messages[-1]
    assert len(ran.outputs["decode"][1]) == 8
    assert "does not listen" in ran.said("decode")[-1]


def test_every_signal_may_drive_at_once(host):
    prompt = also(
        talking(prefix="all", sampler={"driving": ["script", 0]}),
        pose=(
            "KnotForcingPose",
            {
                "driving": ["audio", 0],
                "pose_images": ["image", 0],
                "pose_fps": 1.0,
                "yaw": 0.0,
                "pitch": 0.0,
                "roll": 0.0,
                "strength": 1.0,
            },
        ),
        face=(
            "KnotForcingExpression",
            {"driving": ["pose", 0], "smile": 0.5, "brows": 0.0, "gaze_x": 0.0, "gaze_y": 0.0, "motion": 1.2, "strength": 1.0},
        ),
        script=("KnotForcingScript", {"driving": ["face", 0], "script": "[00:01-] nod, blink"}),
    )
    ran = host.run(prompt)
    assert ran.succeeded, ran.messages[-1]
    assert ran.said("sampler") == ["The pose lasts 1.0 s of 2.0 s; after that the head is free."]
    assert "the script's head movements are not" in ran.said("decode")[-1]
    assert not torch.equal(ran.outputs["decode"][1], host.run(talking()).outputs["decode"][1])
