"""A whole run from the command line, tiny: begin, stop by a kind kill, go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lab
from kf_core.vae.wan import WanVAE
from lab.autoencoder import DIM
from lab.kf_tiny.vae_losses import initialise
from lab.shards import write_shard

ROOT = Path(lab.__file__).parents[1]


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_from_there(tmp_path):
    rng = np.random.default_rng(0)
    points = np.full((2, 5, 3, 2), 16, np.float32)
    about = {"world": "heads", "points": ["left_eye", "right_eye", "mouth"]}
    write_shard(
        tmp_path / "shards/heads-1.safetensors",
        {"frames": rng.integers(0, 255, (2, 5, 32, 32, 3)).astype(np.uint8), "points": points},
        about,
    )
    save_file(
        {name: weight.clone().contiguous() for name, weight in initialise(WanVAE(DIM).requires_grad_(False)).state_dict().items()},
        tmp_path / "begin.safetensors",
    )
    recipe = {
        "cpu_minutes": 60,
        "rate": [0.1, 0.1],
        "batches": [{"share": 1, "frames": 1, "clips": 1, "side": 16}],
        "mix": {"heads-*": 1.0},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe | {"measures_at_the_beginning": False}))
    command = [
        sys.executable,
        "-m",
        "lab.autoencoder",
        "--run",
        tmp_path / "run",
        "--shards",
        tmp_path / "shards",
        "--recipe",
        tmp_path / "recipe.json",
    ]
    command += ["--begin-with", tmp_path / "begin.safetensors"]

    def until(event: str, times: int) -> list[dict]:
        log = tmp_path / "run/log.jsonl"
        for _ in range(1200):
            lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            if sum(line["event"] == event for line in lines) >= times:
                return lines
            assert process.poll() is None or event == "stopped", process.returncode
            time.sleep(0.1)
        raise AssertionError(f"no {event} in two minutes: {lines}")

    steps = []
    for times in (1, 2):
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
        until("begin", times)
        until("train", times)
        process.send_signal(signal.SIGTERM)
        steps.append(until("stopped", times)[-1]["step"])
        assert process.wait(60) == 0
    begun_again = [
        json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines() if json.loads(line)["event"] == "begin"
    ][1]
    assert begun_again["step"] == steps[0] and steps[1] > steps[0] >= 10
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["numbers"]["step"] == steps[1]
