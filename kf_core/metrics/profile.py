"""Where the time of a chunk goes: what the device ran, by name and by kind, and how long it waited for the host.

Measured by PyTorch's profiler over settled chunks, drawing and decoding in turn. On a card the kernels are counted, and no more than that
is recorded, so that the host is hardly slowed; on a CPU the operators. Kinds are told by the names that PyTorch, cuBLAS, cuDNN and
Triton give their kernels; the names stand in the table, so that a wrong guess shows.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..session.stream import Stream, StreamState
from ..types import FrameChunk
from .speed import SETTLED

WAITING, REST = "waiting for the host", "element-wise and the rest"
# the first that is found in a name decides: a copy may be called element-wise, an attention holds products
KINDS = (
    ("attention", r"flash|fmha|attention|softmax"),
    ("convolutions", r"conv|fprop|winograd|implicit"),
    ("products of matrices", r"gemm|gemv|nvjet|cutlass|cublas|xmma|scaled_mm|linear|addmm|aten::(mm|bmm|matmul)|splitk"),
    ("copies", r"mem(cpy|set)|copy|cat|clone|contiguous|nchw|nhwc|aten::(to|_to_copy|fill_|zero_|index)"),
)


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel, or of one operator on a CPU."""

    name: str
    calls: int
    seconds: float

    @property
    def kind(self) -> str:
        return next((kind for kind, pattern in KINDS if re.search(pattern, self.name, re.IGNORECASE)), REST)


@dataclass(frozen=True)
class Profile:
    """Some chunks: what the device ran, the longest first, and how long the chunks took."""

    chunks: int
    seconds: float
    kernels: tuple[Kernel, ...]

    def kinds(self) -> dict[str, float]:
        """Share of the time by kind, the largest first; what is left of it the device waited."""
        shares = {kind: 0.0 for kind, _ in KINDS} | {REST: 0.0}
        for kernel in self.kernels:
            shares[kernel.kind] += kernel.seconds / self.seconds
        shares[WAITING] = max(0.0, 1 - sum(shares.values()))
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def table(self, most: int = 12) -> list[str]:
        """Markdown: shares by kind, then the longest kernels."""
        lines = ["| where the time of a chunk goes | ms | share |", "|---|---:|---:|"]
        whole = 1000 * self.seconds / self.chunks
        lines += [f"| {kind} | {share * whole:.1f} | {share:.0%} |" for kind, share in self.kinds().items()]
        lines += ["", f"| the {min(most, len(self.kernels))} longest | kind | calls a chunk | ms a chunk |", "|---|---|---:|---:|"]
        for kernel in self.kernels[:most]:
            name = kernel.name.replace("|", "/")[:90]
            lines.append(f"| `{name}` | {kernel.kind} | {kernel.calls / self.chunks:.0f} | {1000 * kernel.seconds / self.chunks:.2f} |")
        return lines


def profiled(stream: Stream, chunks: int) -> Profile:
    """The profile of some chunks of a stream, once it has settled."""
    state = StreamState.start(stream)
    is_card = stream.model.device.type == "cuda"
    finished = (item for item in stream.steps(state) if isinstance(item, FrameChunk) and state.is_whole)
    for _ in islice(finished, SETTLED):
        pass
    with profile(activities=[ProfilerActivity.CUDA if is_card else ProfilerActivity.CPU]) as seen:
        before = perf_counter()
        for _ in islice(finished, chunks):
            pass
        seconds = perf_counter() - before  # frames are on the CPU, so the device is done
    return Profile(chunks, seconds, tuple(_kernels(seen.key_averages(), is_card)))


def _kernels(events: Iterable, is_card: bool) -> list[Kernel]:
    """What the profiler saw the device do, the longest first; its own marks and the host's calls are left out."""
    wanted = DeviceType.CUDA if is_card else DeviceType.CPU
    found = []
    for event in events:
        micros = event.self_device_time_total if is_card else event.self_cpu_time_total
        if event.device_type == wanted and micros > 0 and not getattr(event, "is_user_annotation", False):  # older PyTorch has none
            found.append(Kernel(event.key, event.count, micros / 1e6))
    return sorted(found, key=lambda kernel: -kernel.seconds)
