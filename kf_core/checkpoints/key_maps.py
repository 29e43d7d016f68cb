"""Other people's names become Wan's: containers, wrappers and prefixes, in one order, as tables.

Source: the published loaders of Self-Forcing, Causal-Forcing, LongLive and ComfyUI.
"""

from collections.abc import Mapping
from typing import Any

ENTRIES = ("generator_ema", "generator", "model", "state_dict")  # where a training checkpoint keeps the generator, best first
WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")  # anywhere in a name
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")  # in front of every name


def unpacked(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The generator's tensors inside a checkpoint: its best entry, or itself."""
    for entry in ENTRIES:
        if isinstance(data.get(entry), Mapping):
            return unpacked(data[entry])
    return data


def wan_name(name: str) -> str:
    """A tensor's name without the wrappers and prefixes of whoever saved it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
