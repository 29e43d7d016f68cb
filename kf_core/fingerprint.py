"""What a value is, as a short text: equal recipes have equal fingerprints, on any day and in any process.

Looks into dataclasses, tensors, networks and files. Of large files and networks it looks at samples taken all over, so that a
14-billion-parameter model costs as little as a small one. What stands for something elsewhere says its own name (`name_for_recipe`).
What cannot be repeated (a live source) has no fingerprint. A field that came `later` than the first names is said only where it is
used, so that names given before still hold.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

BLOCKS, BLOCK_BYTES = 64, 65536  # looked at in a file, evenly spaced
SAMPLED_VALUES = 64  # looked at in each tensor of a network


class Unrepeatable(ValueError):
    """The value is not one that another run could have again."""


def later(default: Any) -> Any:
    """A dataclass field with this default that came when values of its class had names already."""
    return dataclasses.field(default=default, metadata={"later": True})


def unsaid(value: Any) -> list[str]:
    """The fields of a dataclass's value that came later and are not used."""
    fields = dataclasses.fields(value)
    return [field.name for field in fields if field.metadata.get("later") and getattr(value, field.name) == field.default]


def fingerprint(*values) -> str:
    """32 hexadecimal digits. Raises Unrepeatable."""
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value)
    return digest.hexdigest()[:32]


def _feed(digest, value) -> None:
    digest.update(f"<{type(value).__name__}>".encode())
    if value is None or isinstance(value, bool | int | float | str):
        digest.update(repr(value).encode())
    elif isinstance(value, bytes):
        digest.update(value)
    elif isinstance(value, Path):
        _feed_file(digest, value)
    elif isinstance(getattr(value, "name_for_recipe", None), str):
        digest.update(value.name_for_recipe.encode())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        left_out = unsaid(value)
        for field in dataclasses.fields(value):
            if field.name not in left_out:
                digest.update(field.name.encode())
                _feed(digest, getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            _feed(digest, item)
    elif isinstance(value, dict):
        for key in sorted(value):
            _feed(digest, key)
            _feed(digest, value[key])
    else:
        _feed_numbers(digest, value)
    digest.update(b"</>")


def _feed_numbers(digest, value) -> None:
    """Arrays, tensors and networks. Raises Unrepeatable for anything else."""
    import numpy as np
    import torch  # only here: a file has its name without PyTorch

    if isinstance(value, torch.nn.Module):
        for name, tensor in value.state_dict().items():
            digest.update(f"{name} {list(tensor.shape)}".encode())
            _feed_numbers(digest, tensor.flatten()[:: max(1, tensor.numel() // SAMPLED_VALUES)])
    elif isinstance(value, np.ndarray | torch.Tensor):
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")  # the memory itself, which may be gigabytes
    else:
        raise Unrepeatable(f"a {type(value).__name__} has no fingerprint")


def _feed_file(digest, path: Path) -> None:
    length = path.stat().st_size
    digest.update(str(length).encode())
    step = max(BLOCK_BYTES, (length - BLOCK_BYTES) // (BLOCKS - 1))
    with path.open("rb") as file:
        for start in range(0, length, step):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
