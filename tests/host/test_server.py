"""A headless ComfyUI server, as a user runs it: the pack loads clean, shows what it makes, and survives being killed."""

import json
import os
import re
import shutil

import pytest
import torch

from kf_core.media.playback import frames, probe

from .conftest import talking, write_inputs, write_models
from .place import PACK, host_folder
from .server import Server
from .shipped import WORKFLOWS

CORE_SNAPSHOT = PACK / "tests" / "nodes" / "core_info.json"
NODES = {
    "KnotForcingExample": "Example Portrait & Voice",
    "KnotForcingLoadModel": "Load KF Model",
    "KnotForcingPortraitCrop": "Portrait Crop",
    "KnotForcingEncodeAnchor": "Encode Reference Anchor",
    "KnotForcingAudio": "Audio Conditioning",
    "KnotForcingPose": "Pose Conditioning",
    "KnotForcingExpression": "Expression & Motion",
    "KnotForcingScript": "Script",
    "KnotForcingSampler": "Knot Forcing Sampler",
    "KnotForcingDecode": "Streaming Decode",
    "KnotForcingNextSegment": "Next Segment",
    "KnotForcingAppendSegment": "Append Segment",
    "KnotForcingToLatent": "Stream to Latent",
    "KnotForcingPerformance": "Performance Card",
    "KnotForcingMeter": "Seam & Drift Meter",
}  # for ever: saved workflows hold the ids


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Server:
    host_folder()
    running = Server(tmp_path_factory.mktemp("server"), "--disable-api-nodes")
    write_models(running.folder / "models")
    write_inputs(running.folder / "input")
    try:
        yield running.start()
    finally:
        running.kill()


def long(prefix: str, seconds: float = 12.0) -> dict:
    return talking(prefix=prefix, sampler={"seconds": seconds}, decode={"keep_frames": False})


def test_the_pack_loads_without_a_warning_and_every_input_is_explained(server):
    log = server.log.read_text()
    assert "knot-forcing" in log and "IMPORT FAILED" not in log
    assert not [line for line in log.splitlines() if "knot" in line.lower() and ("warn" in line.lower() or "error" in line.lower())]
    for node, name in NODES.items():
        info = server.get(f"/object_info/{node}")[node]
        assert info["display_name"] == name and info["category"] == "Knot Forcing" and info["description"]
        for inputs in info["input"].values():
            for field, (_, *options) in inputs.items():
                assert field in info["input"].get("hidden", {}) or options[0]["tooltip"], f"{name}: {field} has no tooltip"


def test_the_hosts_own_nodes_are_what_the_workflows_expect(server):
    """KF_WRITE_SNAPSHOT=1 writes down what they are, for tests without a host."""
    used = {node.type for workflow in WORKFLOWS for node in workflow.nodes().values() if not node.type.startswith("KnotForcing")}
    said = {id: {part: server.get(f"/object_info/{id}")[id][part] for part in ("input", "output")} for id in sorted(used)}
    if os.environ.get("KF_WRITE_SNAPSHOT") == "1":
        version = server.get("/system_stats")["system"]["comfyui_version"]
        CORE_SNAPSHOT.write_text(json.dumps({"comfyui": version, "nodes": said}, indent=1) + "\n", encoding="utf-8")
    assert holds(said, json.loads(CORE_SNAPSHOT.read_text(encoding="utf-8"))["nodes"])


def holds(said, expected) -> bool:
    """Whether all is there that is expected; a list of choices may be longer in a newer host."""
    match expected:
        case dict():
            return said.keys() == expected.keys() and all(holds(said[key], value) for key, value in expected.items())
        case list() if all(isinstance(value, str) for value in expected):
            return set(expected) <= set(said)
        case list():
            return len(said) == len(expected) and all(map(holds, said, expected))
    return said == expected


def test_faces_are_shown_while_the_file_grows(server):
    seen = []
    event, previews, texts = server.run(long("seen"), lambda text: seen.append([path.stat().st_size for path in server.videos("seen")]))
    assert event == "execution_success", texts
    assert len(previews) > 3 and all(b"\xff\xd8\xff" in preview[:16] for preview in previews)
    sizes = [found[0] for found in seen if found]
    assert sizes[0] < sizes[-1], "the file was there, and smaller, while it was made"
    facts = probe(server.videos("seen")[0])
    assert facts.frames == 192 and facts.sound_seconds == pytest.approx(12.0, abs=0.05)


def test_cancel_is_heard_and_a_playable_file_remains(server):
    presses = []

    def cancel(text: str) -> None:
        if text.startswith("2.1 of 12.0 s") and not presses:
            presses.append(text)
            server.post("/interrupt", {})

    event, _, texts = server.run(talking(seed=8, prefix="cancelled", sampler={"seconds": 12.0}), cancel)
    assert event == "execution_interrupted"
    path = server.videos("cancelled")[0]
    made = probe(path).frames
    assert 33 <= made <= 45, "at once: at most the chunk that was being decoded"
    assert f"Stopped. {made / 16:.1f} s are in" in texts[-1]


def test_a_killed_server_goes_on_where_it_was_and_the_result_is_the_same(server):
    prompt = long("killed", 120.0)  # so long that it is not done before the kill is heard, however busy the machine is

    def shown(text: str) -> float:
        """Seconds of video that a line says are there."""
        found = re.match(r"([\d.]+) of 120.0 s", text)
        return float(found[1]) if found else 0.0

    def kill(text: str) -> None:
        if shown(text) > 6 and server.process.poll() is None:
            server.kill()

    assert server.run(prompt, kill)[0] == "gone"
    path = server.videos("killed")[0]
    made = probe(path).frames
    assert 96 < made < 1920, "what was made before the kill plays"
    beyond = made / 16 + 6
    server.start()
    event, _, texts = server.run(prompt, lambda text: server.post("/interrupt", {}) if shown(text) > beyond + 2 else None)
    assert event == "execution_interrupted", texts
    shutil.rmtree(server.folder / "output" / "knot_forcing")
    assert server.run(long("whole", beyond))[0] == "execution_success"
    whole = list(frames(server.videos("whole")[0]))[:-12]  # its last chunk is cut, so H.264 has other losses there
    assert len(whole) > made
    both = zip(frames(path), whole, strict=False)
    other = {index: (ours - theirs).abs().max().item() for index, (ours, theirs) in enumerate(both) if not torch.equal(ours, theirs)}
    assert not other, f"killed after frame {made}: these differ, by so much"
