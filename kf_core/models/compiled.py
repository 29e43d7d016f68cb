"""The optimized forward's blocks through `torch.compile`: element-wise work between the products becomes a few kernels.

Wanted by those who run long: the first chunks wait while each shape is compiled once (a pass and a commit, for each fill of the window),
then nothing is compiled again. A compiler is needed, and a machine without one denoises as before and says so. A shape that cannot be
compiled is denoised as before, too: there is never an error in the middle of a film.
"""

from contextlib import AbstractContextManager

import torch

from .optimized_forward import OptimizedGenerator

SHAPES = 64  # compiled at most of one block's code; PyTorch's own limit of 8 is less than a wide window has fills


def compile_blocks(generator: OptimizedGenerator, backend="inductor") -> str:
    """Compiles the generator's blocks as they are first called. A sentence says what will be, or why it is not."""
    if (reason := _missing(generator.device, backend)) is not None:
        return f"Nothing is compiled: {reason}. The blocks run as they are."
    generator.around = _switches
    for block in generator.blocks:
        block.compile(backend=backend, dynamic=False)
    return "The blocks are compiled as they are first used: the first chunks take longer, by minutes for a large model."


def _switches() -> AbstractContextManager:
    """How many shapes may be compiled, and that what fails is run as it is: for a pass of ours, and for nothing else in the process."""
    return torch._dynamo.config.patch(recompile_limit=max(SHAPES, torch._dynamo.config.recompile_limit), suppress_errors=True)


def _missing(device: torch.device, backend) -> str | None:
    """Why nothing can be compiled here, found out by compiling a trifle; None where it can."""
    try:
        with torch._dynamo.config.patch(suppress_errors=False):
            torch.compile(_trifle, backend=backend, dynamic=False)(torch.zeros(8, device=device))
    except (RuntimeError, ImportError, OSError, ValueError, AssertionError) as problem:  # PyTorch's own for compilers are RuntimeErrors
        inner = getattr(problem, "inner_exception", problem)
        lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
        return f"there is no working compiler for {device.type} ({(lines or [type(inner).__name__])[0][:120]})"
    return None


def _trifle(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).sin() * 2
