"""A stream through other people's nodes, segment by segment, and what the meters say of it, in a real ComfyUI."""

import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from kf_core.media.playback import frames, probe
from kf_core.media.video import Provenance

from .conftest import also, talking


def segments(index: int, prefix: str = "joined", seconds: float = 0.5) -> dict:
    """Streaming Decode's place taken by Next Segment, an upscaler and Append Segment."""
    prompt = talking(seed=30)
    del prompt["decode"]
    return also(
        prompt,
        next=("KnotForcingNextSegment", {"stream": ["sampler", 0], "vae": ["load", 1], "index": index, "seconds": seconds}),
        larger=("ImageScaleBy", {"image": ["next", 0], "upscale_method": "nearest-exact", "scale_by": 2.0}),
        join=("KnotForcingAppendSegment", {"images": ["larger", 0], "segment": ["next", 2], "filename_prefix": prefix}),
    )


def test_joined_segments_are_the_stream_with_its_sound_in_place(host):
    whole = host.run(talking(seed=30, prefix="segments-whole")).outputs["decode"][1]
    runs = [host.run(segments(index)) for index in range(4)]
    assert all(ran.succeeded for ran in runs), [ran.messages[-1] for ran in runs]
    assert torch.equal(torch.cat([ran.outputs["next"][0] for ran in runs]), whole)
    assert [ran.outputs["next"][1]["waveform"].shape for ran in runs] == [(1, 2, 24000)] * 4
    path = next((host.folder / "output").glob("joined_*.mp4"))
    facts = probe(path)
    assert (facts.frames, facts.width, facts.height) == (32, 64, 64)
    assert facts.sound_seconds == pytest.approx(2.0, abs=0.05)
    for made, true in zip(frames(path), whole, strict=True):
        assert (made[::2, ::2] - true).abs().mean() < 0.2  # H.264, and noise does not compress well
    assert runs[-1].said("join")[-1] == f"2.0 of 2.0 s in {path}"


def test_sound_that_was_worked_on_goes_on_over_every_joint(host):
    """The stream itself is silent; each segment comes with half a second of a tone."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24000) / 48000)  # whole periods, so segments go on where the last one ended
    with wave.open(str(host.folder / "input" / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((tone * 32767).astype("<i2").tobytes())
    for index in range(4):
        prompt = also(segments(index, prefix="worked"), tone=("LoadAudio", {"audio": "tone.wav"}))
        del prompt["sampler"]["inputs"]["driving"], prompt["voice"], prompt["audio"]
        prompt["sampler"]["inputs"]["seconds"] = 2.0
        prompt["join"]["inputs"]["audio"] = ["tone", 0]
        ran = host.run(prompt)
        assert ran.succeeded, ran.messages[-1]
    with av.open(str(next((host.folder / "output").glob("worked_*.mp4")))) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    loudness = np.sqrt((heard[: 4 * 24000].reshape(-1, 480) ** 2).mean(1))[:-1]  # an encoder fades the last moment
    assert loudness.min() > 0.9 * loudness.max(), f"silence at {loudness.argmin() / 100:.2f} s"


def test_the_models_and_the_recipe_are_cached_from_segment_to_segment(host):
    host.run(segments(0))
    assert {"load", "anchor", "sampler"} <= host.run(segments(1)).cached


def test_a_segment_that_was_left_out_is_named(host):
    host.run(segments(0, prefix="gap"))
    ran = host.run(segments(2, prefix="gap"))
    assert not ran.succeeded and ran.error["node_id"] == "join"
    assert "a segment before it is missing. Set `index` of Next Segment to 1 " in ran.error["exception_message"]


@pytest.mark.parametrize(("prefix", "is_worked_on"), [("lazy", False), ("lazy-%width%x%height%", True)])
def test_a_segment_that_cannot_be_put_in_is_not_worked_on(host, prefix, is_worked_on):
    """But for a file whose name has the size of the frames: which one that is, only they tell."""
    prompt = also(segments(3, prefix=prefix), tone=("EmptyAudio", {"duration": 0.5, "sample_rate": 48000, "channels": 2}))
    prompt["join"]["inputs"]["audio"] = ["tone", 0]
    host.fresh()
    ran = host.run(prompt)
    assert ran.error["node_id"] == "join" and "Set `index` of Next Segment to 0 " in ran.error["exception_message"]
    assert "next" in ran.outputs and ({"larger", "tone"} <= set(ran.outputs)) == is_worked_on


def test_two_nodes_do_not_write_into_one_file(host):
    """Whichever comes first has it. The other may begin it anew when the first has gone or has another name."""

    def both(index: int, other: str) -> dict:
        nodes = segments(index, prefix="shared")
        return also(
            nodes,
            softer=("ImageScaleBy", {"image": ["next", 0], "upscale_method": "bilinear", "scale_by": 2.0}),
            second=("KnotForcingAppendSegment", nodes["join"]["inputs"] | {"images": ["softer", 0], "filename_prefix": other}),
        )

    host.fresh()
    ran = host.run(both(0, other="shared"))
    first, second = sorted(("join", "second"), key=lambda node: node == ran.error["node_id"])
    assert "writes shared_" in ran.error["exception_message"] and "Choose another `filename_prefix`" in ran.error["exception_message"]
    path = next((host.folder / "output").glob("shared_*.mp4"))
    assert f"Begun by node {first}." in probe(path).metadata["comment"] and probe(path).frames == 8
    host.fresh()  # a restarted ComfyUI
    ran = host.run(both(1, other="shared"))
    assert ran.error["node_id"] == second and probe(path).frames in (8, 16)
    moved = both(0, other="shared")
    moved[first]["inputs"]["filename_prefix"] = "moved"
    ran = host.run(moved)
    assert ran.succeeded, ran.messages[-1]
    assert f"Begun by node {second}." in probe(path).metadata["comment"]
    assert host.run(segments(0, prefix="shared")).succeeded


def test_a_file_that_says_nothing_of_who_began_it_is_gone_on_with(host, monkeypatch):
    ours = host.of_pack("segments")
    with monkeypatch.context() as before:
        before.setattr(ours, "Provenance", lambda model, seed, writer: Provenance(model=model, seed=seed))
        host.run(segments(0, prefix="old"))
    path = next((host.folder / "output").glob("old_*.mp4"))
    assert "Begun by" not in probe(path).metadata["comment"]
    host.fresh()
    assert host.run(segments(1, prefix="old")).succeeded and probe(path).frames == 16


def test_a_segment_that_comes_again_is_not_joined_twice_and_that_is_said(host):
    for index in (0, 1, 1):
        ran = host.run(segments(index, prefix="twice"))
        host.fresh()
    path = next((host.folder / "output").glob("twice_*.mp4"))
    assert probe(path).frames == 16
    said = ran.said("join")[-1]
    assert said.startswith(f"1.0 of 2.0 s in {path}. 8 frames of segment 1 were in the file before and were not put in again")
    assert "set `index` of Next Segment to 0" in said


def test_segment_0_begins_anew_a_file_that_cannot_be_removed(host, monkeypatch):
    """As on Windows while a browser plays it."""
    for index in (0, 1):
        host.run(segments(index, prefix="played"))
    path = next((host.folder / "output").glob("played_*.mp4"))
    host.fresh()
    remove = Path.unlink
    with monkeypatch.context() as windows:
        windows.setattr(Path, "unlink", lambda file, missing_ok=False: _in_use(path) if file == path else remove(file, missing_ok))
        ran = host.run(segments(0, prefix="played"))
    assert ran.succeeded, ran.messages[-1]
    assert probe(path).frames == 8 and ran.said("join")[-1] == f"0.5 of 2.0 s in {path}"


def test_a_file_that_cannot_be_begun_anew_is_said_in_words(host):
    host.run(segments(0, prefix="locked"))
    path = next((host.folder / "output").glob("locked_*.mp4"))
    path.unlink()
    path.mkdir()
    host.fresh()
    ran = host.run(segments(0, prefix="locked"))
    assert ran.error["node_id"] == "join" and "is a folder" in ran.error["exception_message"]


def test_a_file_that_the_workflow_reads_is_not_begun_anew(host):
    host.run(segments(0, prefix="read"))
    path = next((host.folder / "output").glob("read_*.mp4"))
    before = path.read_bytes()
    host.fresh()
    prompt = also(segments(0, prefix="read"), own=("LoadAudio", {"audio": f"{path.name} [output]"}))
    ran = host.run(prompt)
    assert ran.error["node_id"] == "join" and "is the same file as `audio` of LoadAudio (node own)" in ran.error["exception_message"]
    assert path.read_bytes() == before


def _in_use(path: Path) -> None:
    raise PermissionError(13, "The process cannot access the file because it is being used by another process", str(path))


def test_beyond_the_end_it_is_said_that_all_is_done(host):
    ran = host.run(segments(4, prefix="beyond"))
    assert ran.error["node_id"] == "next" and "has 4 segments of 0.5 s" in ran.error["exception_message"]


def test_the_latents_decode_to_the_same_frames_in_the_hosts_own_node(host):
    prompt = talking(seed=31, prefix="latents")
    whole = host.run(prompt).outputs["decode"][1]
    del prompt["decode"]
    ran = host.run(
        also(
            prompt,
            latent=("KnotForcingToLatent", {"stream": ["sampler", 0], "vae": ["load", 1], "max_latents": 20}),
            decoded=("VAEDecode", {"samples": ["latent", 0], "vae": ["load", 1]}),
            look=("PreviewImage", {"images": ["decoded", 0]}),
        )
    )
    assert ran.succeeded, ran.messages[-1]
    theirs = ran.outputs["decoded"][0]
    assert ran.outputs["latent"][0]["samples"].shape == (1, 16, 9, 4, 4)
    assert (theirs[:32] - whole).abs().mean() < 0.01  # theirs in float32, ours in bfloat16 where the CPU has it


def test_a_portrait_is_cut_round_the_face_and_nothing_is_claimed_without_a_detector(host):
    crop = ("KnotForcingPortraitCrop", {"image": ["image", 0], "model": ["load", 0], "margin": 2.0})
    prompt = also({node: talking()[node] for node in ("load", "image")}, crop=crop, look=("PreviewImage", {"images": ["crop", 0]}))
    ran = host.run(prompt)
    assert ran.outputs["crop"][1].startswith("Face: not checked") and ran.outputs["crop"][0].shape == (1, 48, 48, 3)
    prompt["box"] = {"class_type": "PrimitiveBoundingBox", "inputs": {"x": 30, "y": 4, "width": 12, "height": 16}}
    prompt["crop"]["inputs"] |= {"face": ["box", 0]}
    ran = host.run(prompt)
    assert ran.succeeded, ran.messages[-1]
    assert ran.outputs["crop"][0].shape == (1, 32, 32, 3) and "12x16 pixels" in ran.outputs["crop"][1]
    assert torch.equal(ran.outputs["crop"][0], ran.outputs["image"][0][:, 0:32, 16:48])
    assert "The face is small" not in ran.outputs["crop"][1]


@pytest.mark.parametrize("margin", [1.8, 2.2, 6.0])
@pytest.mark.parametrize("side, is_small", [(9, True), (10, False)])  # the model is 32 high: head and shoulders of 9 are enlarged 1.6 times
def test_a_small_face_is_told_of_however_much_is_cut_out_round_it(host, margin, side, is_small):
    crop = ("KnotForcingPortraitCrop", {"image": ["image", 0], "model": ["load", 0], "margin": margin, "face": ["box", 0]})
    box = ("PrimitiveBoundingBox", {"x": 20, "y": 20, "width": side, "height": side})
    seen = dict(crop=crop, box=box, look=("PreviewImage", {"images": ["crop", 0]}))
    ran = host.run(also({node: talking()[node] for node in ("load", "image")}, **seen))
    assert ran.succeeded, ran.messages[-1]
    report = ran.outputs["crop"][1]
    assert ("The face is small" in report) == is_small, report
    assert not (is_small and "Nothing is wrong" in report)


def test_the_meters_speak_in_numbers_and_frames(host):
    prompt = also(
        talking(prefix="meter"),
        meter=("KnotForcingMeter", {"video": ["decode", 0], "chunk": 3}),
        card=("KnotForcingPerformance", {"stream": ["sampler", 0], "vae": ["load", 1], "chunks": 3}),
        plot=("PreviewImage", {"images": ["meter", 0]}),
        shown=("PreviewImage", {"images": ["card", 0]}),
    )
    ran = host.run(prompt)
    assert ran.succeeded, ran.messages[-1]
    measured, speed = (json.loads(ran.outputs[node][1]) for node in ("meter", "card"))
    assert measured["frames"] == 32 and measured["seam_ratio"] > 0 and measured["seams"] == 2
    assert speed["frames per second"] > 0 and speed["chunks"] == 3 and speed["size"] == "32x32"
    assert all(ran.outputs[node][0].std() > 0.05 for node in ("meter", "card")), "something is drawn"
