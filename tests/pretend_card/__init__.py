"""A card for machines that have none: PyTorch's own device "pretend", which computes on the processor and refuses what a card would refuse.

Mistakes that only a card shows (a mask made in the wrong place, an encoder that was moved in part) show on it, too. It is slow, it
computes no faster or otherwise than the processor, and it knows nothing of streams, graphs, half-finished copies or CUDA's own kernels.

    python -m tests.pretend_card kf_core animate --portrait me.png --audio voice.wav --out talk.mp4 --device pretend
    python -m tests.pretend_card lab kf-tiny --size 32 --minutes 4 --grow-from kf_core/assets --device pretend ...
    python -m pytest -p tests.pretend_card.host tests/host/test_streams.py      (a ComfyUI that takes it for its graphics card)

Needs a C++ compiler and ninja; built once for each version of PyTorch, in about a minute.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import UntypedStorage

NAME = "pretend"
NEEDED = ("c++", "ninja")


def skip_where_it_cannot_be_built() -> None:
    """For tests, loudly. It was built on Linux only."""
    missing = [program for program in NEEDED if shutil.which(program) is None] if sys.platform == "linux" else ["Linux"]
    if missing:
        pytest.skip(f"NO {' AND NO '.join(missing).upper()} FOUND: the pretend card cannot be built, devices are not tested")


def plug_in() -> ModuleType:
    """From now on `device="pretend"` is a device of this process. Returns the extension: `held()` bytes, `operations()` computed."""
    card = _extension()
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _module())
    torch.utils.generate_methods_for_privateuse1_backend()
    UntypedStorage.cpu, UntypedStorage.to = _to_processor, _to_device
    return card


def _extension() -> ModuleType:
    """Built elsewhere and moved in whole: who is killed while building leaves nothing that others wait for; two may build at once."""
    from torch.utils.cpp_extension import get_default_build_root, load

    name, source = "pretend_card", Path(__file__).with_name("card.cpp")
    digest = hashlib.sha256(source.read_bytes() + f"{torch.__version__} {sys.version}".encode()).hexdigest()[:16]
    folder = Path(get_default_build_root()) / f"{name}-{digest}"
    if folder.exists():
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.so")
        extension = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(extension)
        return extension
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent)
    extension = load(name, [str(source)], build_directory=new, extra_cflags=["-O1", "-w"])
    with suppress(OSError):  # another was first
        os.rename(new, folder)
    shutil.rmtree(new, ignore_errors=True)
    return extension


def _module() -> ModuleType:
    """What PyTorch asks a device's module for."""
    module = ModuleType(f"torch.{NAME}")
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module.device = lambda index: nullcontext()
    module.synchronize = lambda *device: None
    module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda *device: torch.zeros(1, dtype=torch.uint8)
    module.set_rng_state = lambda *state: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    module._is_in_bad_fork = lambda: False
    return sys.modules.setdefault(module.__name__, module)


def _bytes(storage: UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, 0, (storage.size(),), (1,))


_own_cpu, _own_to = UntypedStorage.cpu, UntypedStorage.to


def _to_processor(self: UntypedStorage) -> UntypedStorage:
    """For `torch.save`."""
    return _bytes(self).cpu().untyped_storage() if self.device.type == NAME else _own_cpu(self)


def _to_device(self: UntypedStorage, *, device: torch.device, non_blocking: bool = False) -> UntypedStorage:
    """For `torch.load`."""
    if NAME in (self.device.type, torch.device(device).type):
        return _bytes(self).to(device).untyped_storage()
    return _own_to(self, device=device, non_blocking=non_blocking)
