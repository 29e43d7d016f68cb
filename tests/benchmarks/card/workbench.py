"""The streams that are measured: random weights of one size, each way to accelerate them made once and kept while it is needed.

Streams are made as `python -m kf_core bench` makes them, by the same options.
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from kf_core.cli import bench
from kf_core.conditioning.anchor import Anchor
from kf_core.metrics.parity import as_plain, first_latents
from kf_core.session.stream import Stream
from kf_core.vae.wan import SPATIAL_STRIDE, Z_DIM

from .scale import Scale

ENOUGH = 100  # chunks: more than fill any window
Accelerators = tuple[str, ...]


class Workbench:
    """Makes and keeps streams for one run of the benchmark on one device."""

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self.scale, self.device = scale, device
        parser = argparse.ArgumentParser()
        bench.add_arguments(parser)
        words = ["--preset", scale.preset, "--precision", scale.precision, "--device", str(device), "--tiny-vae"]
        self.chosen = parser.parse_args(words)
        self._streams: dict[Accelerators, Stream] = {}
        self._exact: dict[tuple[int, int], Tensor] = {}

    @property
    def dtype(self) -> torch.dtype:
        return bench.model_arguments.PRECISIONS[self.scale.precision]

    def stream(self, accelerators: Accelerators, size: tuple[int, int]) -> Stream:
        """Without end, in silence, its portrait noise."""
        if accelerators not in self._streams:
            self._streams[accelerators], _ = bench.stream_of(bench.accelerated(self.chosen, *accelerators), self.scale.precision)
        width, height = size
        generator = torch.Generator().manual_seed(0)
        latent = torch.randn(1, Z_DIM, 1, height // SPATIAL_STRIDE, width // SPATIAL_STRIDE, generator=generator)
        return replace(self._streams[accelerators], anchor=Anchor(latent.to(self.device)))

    def exact(self, size: tuple[int, int]) -> Tensor:
        """The first latents by the plain forward with nothing accelerated: [b, c, f, h, w] on the CPU."""
        if size not in self._exact:
            self._exact[size] = first_latents(as_plain(self.stream((), size)), ENOUGH)
        return self._exact[size]

    def keep_only(self, *wanted: Accelerators) -> None:
        """Let go of the weights of other ways to draw."""
        self._streams = {names: stream for names, stream in self._streams.items() if names in wanted}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
