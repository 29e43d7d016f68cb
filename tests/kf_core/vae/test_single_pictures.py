"""An autoencoder learns from single frames in bfloat16 on any processor.

The 3D convolution's backward in bfloat16 ended the process on CPUs with AMX (PyTorch 2.13, one frame: 4 x 3 x 1 x 128 x 128). So frames
are convolved as frames. What ends a process is tried in a process of its own.
"""

import subprocess
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kf_core.vae.wan import WanVAE

ROOT = Path(__file__).parents[3]

LEARNING = """
import torch
from kf_core.vae.streaming import prepare
from kf_core.vae.wan import WanVAE

def gradients(is_rough):
    torch.manual_seed(0)
    vae = prepare(WanVAE(dim=4), torch.float32)
    frames = torch.rand(4, 3, 1, 32, 32) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16, enabled=is_rough):
        mean, log_variance = vae.encode(frames, {})
        loss = (vae.decode(mean, {}) - frames).float().square().mean() + mean.float().square().mean() + log_variance.float().mean()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None])

exact, rough = gradients(False), gradients(True)
assert rough.isfinite().all() and exact.shape == rough.shape
print((rough - exact).norm().item() / exact.norm().item(), torch.cosine_similarity(rough, exact, dim=0).item())
"""


class Convolutions(TorchDispatchMode):
    """Notes how many axes each weight has that is convolved with, forwards and backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.axes: list[int] = []

    def __torch_dispatch__(self, function, types, arguments=(), words=None):
        if function is torch.ops.aten.convolution.default:
            self.axes.append(arguments[1].ndim)
        elif function is torch.ops.aten.convolution_backward.default:
            self.axes.append(arguments[2].ndim)
        return function(*arguments, **(words or {}))


def test_gradients_in_bfloat16_are_those_of_float32_and_the_process_lives():
    result = subprocess.run([sys.executable, "-c", LEARNING], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, f"ended with {result.returncode}: {result.stderr}"
    error, cosine = map(float, result.stdout.split())
    assert error < 0.2 and cosine > 0.99


def test_a_single_frame_meets_frame_convolutions_only():
    vae = WanVAE(dim=4)
    with Convolutions() as seen:
        mean, _ = vae.encode(torch.rand(2, 3, 1, 16, 16), {})
        vae.decode(mean, {}).mean().backward()
    assert len(seen.axes) > 100 and set(seen.axes) == {4}


def test_a_frame_alone_is_the_first_of_a_clip():
    torch.manual_seed(0)
    vae = WanVAE(dim=4).double()
    clip = torch.rand(1, 3, 5, 16, 16, dtype=torch.float64) * 2 - 1
    alone, first = vae.encode(clip[:, :, :1], {})[0], vae.encode(clip, {})[0][:, :, :1]
    assert (alone - first).abs().max() < 1e-12
    latents = torch.randn(1, 16, 3, 2, 2, dtype=torch.float64)
    assert (vae.decode(latents[:, :, :1], {}) - vae.decode(latents, {})[:, :, :1]).abs().max() < 1e-12
