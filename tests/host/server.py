"""A headless ComfyUI server in a folder of its own, as a user runs it: started, asked, killed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .place import PACK, host_folder, refuse

PREVIEW_WITH_METADATA, TEXT = 4, 3  # ComfyUI's numbers for what it sends


class Server:
    """What it writes stays in `folder`. The pack is the only custom node."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags = folder, flags
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
        command += ["--base-directory", str(self.folder), "--database-url", "sqlite:///:memory:", *self.flags]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=main.parent, stdout=log, stderr=log, env=environment)
        for _ in range(1200):
            time.sleep(0.5)
            if self.process.poll() is not None:
                if "No module named" in self.log.read_text():
                    refuse(f"COMFYUI CANNOT BE STARTED HERE: {self.log.read_text().splitlines()[-1]}")
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

    def run(self, prompt: dict, on_text=lambda text: None, seconds: float = 300) -> tuple[str, list[bytes], list[str]]:
        """Queue a prompt as a browser does: how it ended, within so many seconds, the previews of the node, the lines on it."""
        with ThreadPoolExecutor(1) as beside:  # this thread may have a loop that runs: Playwright's
            return beside.submit(asyncio.run, asyncio.wait_for(self._run(prompt, on_text), seconds)).result()

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
                        assert json.loads(data[4 : 4 + length])["node_id"] in prompt
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

    def history(self, seconds: float = 10) -> dict:
        """What the server keeps of the prompts that have ended: the last one a moment after it says so."""
        until = time.monotonic() + seconds
        while not (kept := self.get("/history")) and time.monotonic() < until:
            time.sleep(0.1)
        return kept

    def videos(self, prefix: str) -> list[Path]:
        return sorted((self.folder / "output").glob(f"{prefix}_*.mp4"))
