"""A headless ComfyUI server, as a user runs it: the pack loads clean, shows what it makes, and survives being killed."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from kf_core.media.playback import pictures, probe

from .conftest import talking, write_inputs, write_models
from .place import PACK, host_folder

NODES = {
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
PREVIEW_WITH_METADATA, TEXT = 4, 3  # ComfyUI's numbers for what it sends


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_models(folder / "models")
        write_inputs(folder / "input")
        (folder / "custom_nodes").mkdir()
        (folder / "custom_nodes" / "knot-forcing").symlink_to(PACK)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = folder / "log.txt"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Server":
        main = host_folder() / "main.py"
        command = [sys.executable, str(main), "--cpu", "--port", str(self.port), "--disable-auto-launch"]
        command += ["--base-directory", str(self.folder), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=main.parent, stdout=log, stderr=log, env=environment)
        for _ in range(1200):
            time.sleep(0.5)
            if self.process.poll() is not None:
                if "No module named" in self.log.read_text():
                    pytest.skip(f"COMFYUI CANNOT BE STARTED HERE: {self.log.read_text().splitlines()[-1]}")
                pytest.fail(self.log.read_text()[-2000:])
            try:
                self.get("/system_stats")
                return self
            except OSError:
                continue
        pytest.fail("the server did not answer in ten minutes: " + self.log.read_text()[-2000:])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str, data: dict) -> None:
        body = json.dumps(data).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).read()

    def run(self, prompt: dict, on_text=lambda text: None) -> tuple[str, list[bytes], list[str]]:
        """Queue a prompt as a browser does: how it ended, the previews of the node, the lines on it."""
        return asyncio.run(asyncio.wait_for(self._run(prompt, on_text), 300))

    async def _run(self, prompt, on_text):
        import aiohttp

        previews, texts = [], []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{self.port}/ws?clientId=test", max_msg_size=0) as socket,
        ):
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            await asyncio.sleep(0.2)
            self.post("/prompt", {"prompt": prompt, "client_id": "test"})
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    kind, data = int.from_bytes(message.data[:4], "big"), message.data[4:]
                    if kind == PREVIEW_WITH_METADATA:
                        length = int.from_bytes(data[:4], "big")
                        assert json.loads(data[4 : 4 + length])["node_id"] == "decode"
                        previews.append(data[4 + length :])
                    elif kind == TEXT:
                        texts.append(data[4 + int.from_bytes(data[:4], "big") :].decode())
                        on_text(texts[-1])
                elif message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)["type"]
                    if event in ("execution_success", "execution_error", "execution_interrupted"):
                        return event, previews, texts
                else:
                    return "gone", previews, texts
        return "gone", previews, texts

    def videos(self, prefix: str) -> list[Path]:
        return sorted((self.folder / "output").glob(f"{prefix}_*.mp4"))


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Server:
    host_folder()
    running = Server(tmp_path_factory.mktemp("server"))
    try:
        yield running.start()
    finally:
        running.kill()


def long(prefix: str, seconds: float = 12.0) -> dict:
    return talking(prefix=prefix, sampler={"seconds": seconds}, decode={"keep_pictures": False})


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


def test_faces_are_shown_while_the_file_grows(server):
    seen = []
    event, previews, texts = server.run(long("seen"), lambda text: seen.append([path.stat().st_size for path in server.videos("seen")]))
    assert event == "execution_success", texts
    assert len(previews) > 3 and all(b"\xff\xd8\xff" in preview[:16] for preview in previews)
    sizes = [found[0] for found in seen if found]
    assert sizes[0] < sizes[-1], "the file was there, and smaller, while it was made"
    facts = probe(server.videos("seen")[0])
    assert facts.pictures == 192 and facts.sound_seconds == pytest.approx(12.0, abs=0.05)


def test_cancel_is_heard_and_a_playable_file_remains(server):
    presses = []

    def cancel(text: str) -> None:
        if text.startswith("2.1 of 12.0 s") and not presses:
            presses.append(text)
            server.post("/interrupt", {})

    event, _, texts = server.run(talking(seed=8, prefix="cancelled", sampler={"seconds": 12.0}), cancel)
    assert event == "execution_interrupted"
    path = server.videos("cancelled")[0]
    made = probe(path).pictures
    assert 33 <= made <= 45, "at once: at most the chunk that was being decoded"
    assert f"Stopped. {made / 16:.1f} s are in" in texts[-1]


def test_a_killed_server_goes_on_where_it_was_and_the_result_is_the_same(server):
    def kill(text: str) -> None:
        if text.startswith("6.") and server.process.poll() is None:
            server.kill()

    assert server.run(long("killed"), kill)[0] == "gone"
    path = server.videos("killed")[0]
    made = probe(path).pictures
    assert 90 <= made < 192, "what was made before the kill plays"
    server.start()
    event, _, texts = server.run(long("killed"))
    assert event == "execution_success", texts
    shutil.rmtree(server.folder / "output" / "knot_forcing")
    assert server.run(long("whole"))[0] == "execution_success"
    both = zip(pictures(path), pictures(server.videos("whole")[0]), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in both)
