"""A small random upscaler, of a kind that the host's own loader recognises by its tensors."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from .place import refuse


def write_upscaler(path: Path, times: int) -> None:
    """Like RealESRGAN's compact ones; it adds a little to the frame `times` as large."""
    try:
        from spandrel.architectures.Compact import Compact
    except ImportError as problem:
        refuse(f"NO SPANDREL FOUND ({problem}): run with the Python of a ComfyUI to test its upscalers")
    torch.manual_seed(0)
    network = Compact(num_feat=8, num_conv=2, upscale=times)
    save_file({name: 0.2 * tensor for name, tensor in network.state_dict().items()}, path)
