"""For pytest (`-p tests.pretend_card.host`): a ComfyUI that takes the pretend card for its graphics card.

KF_CARD_GB     its memory, 8 if nothing is said
KF_CARD_WHOLE  0: no model fits, so that the host keeps all weights in main memory and sends each one where it is used
KF_CARD_BF16   1: the host chooses bfloat16, as on most cards (slow on processors without it)
"""

import builtins
import os
import sys
from functools import wraps

import torch

from . import NAME, plug_in

card = plug_in()
DEVICE, PROCESSOR = torch.device(NAME, 0), torch.device("cpu")
MEMORY = int(float(os.environ.get("KF_CARD_GB", "8")) * 2**30)
FITS = os.environ.get("KF_CARD_WHOLE", "1") != "0"
BF16 = os.environ.get("KF_CARD_BF16") == "1"
MANAGEMENT = "comfy.model_management"


def pretend(management) -> None:
    """The host's view of its machine, changed."""
    management.cpu_state = management.CPUState.GPU
    management.vram_state = management.VRAMState.NORMAL_VRAM if FITS else management.VRAMState.NO_VRAM
    management.set_vram_to = management.vram_state
    for place in ("get_torch_device", "vae_device", "text_encoder_device"):
        setattr(management, place, lambda: DEVICE)
    for place in ("unet_offload_device", "vae_offload_device", "intermediate_device", "text_encoder_offload_device"):
        setattr(management, place, lambda: PROCESSOR)
    management.unet_inital_load_device = lambda parameters, dtype: PROCESSOR
    management.get_total_memory = _on_card(management.get_total_memory, lambda: (MEMORY, MEMORY))
    management.get_free_memory = _on_card(management.get_free_memory, lambda: (MEMORY - card.held(), 0))
    management.should_use_bf16 = lambda *_, **__: BF16
    for never in ("should_use_fp16", "supports_fp8_compute", "is_nvidia", "pytorch_attention_flash_attention"):
        setattr(management, never, lambda *_, **__: False)
    for nothing in ("soft_empty_cache", "synchronize"):
        setattr(management, nothing, lambda *_, **__: None)


def _on_card(own, answer):
    @wraps(own)
    def asked(device=None, *both, **named_both):
        if device is not None and device.type != NAME:
            return own(device, *both, **named_both)
        return answer() if any((*both, *named_both.values())) else answer()[0]

    return asked


_own_import = builtins.__import__


def _watching_import(name, *args, **kwargs):
    """The host's module is changed as soon as it is whole, before anything else of the host asks it."""
    found = _own_import(name, *args, **kwargs)
    management = sys.modules.get(MANAGEMENT)
    if management is not None and hasattr(management, "throw_exception_if_processing_interrupted"):  # its last word
        builtins.__import__ = _own_import
        pretend(management)
    return found


builtins.__import__ = _watching_import


def pytest_terminal_summary(terminalreporter) -> None:
    terminalreporter.write_line(f"{card.operations()} operations on the pretend card")
