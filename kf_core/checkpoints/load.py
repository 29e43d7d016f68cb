"""A file of weights becomes networks: strictly, nothing missing, nothing left over.

What a generator's file is, and how its weights are made, is `checkpoint.py`'s.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import KnotForcingError
from ..models.adapters import Adapters
from ..models.attention import sdpa
from ..models.card import ModelCard
from ..models.optimized_forward import OptimizedGenerator
from ..models.protocol import Attention
from ..models.shapes import shapes_of
from ..models.wan import WanModel
from ..precision import fast_dtype
from .checkpoint import Checkpoint, open_checkpoint
from .weights import whole

NAMES_SHOWN = 4


def bundled(name: str) -> Path:
    """A file that comes with the pack."""
    path = Path(__file__).parents[1] / "assets" / name  # by place: inside a host the package has another name
    if not path.exists():
        raise KnotForcingError(f"The bundled file {name} is missing from {path.parent}. Install the pack again.")
    return path


def load_generator(
    path: Path | str | None = None,
    *,
    lora: Path | str | None = None,
    known_as: str | None = None,
    card: ModelCard | None = None,
    accept_licence: bool = False,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    attention: Attention = sdpa,
    layers=nn,
) -> OptimizedGenerator:
    """Load a generator; None: the bundled kf-tiny. `dtype` None: bfloat16 where the device has it in hardware, else float32.

    The other words are `open_checkpoint`'s. Raises KnotForcingError when the file is not a generator this version knows, or does not fit
    its card."""
    path = path or bundled("kf-tiny.safetensors")
    opened = open_checkpoint(path, lora=lora, known_as=known_as, card=card, accept_licence=accept_licence)
    return generator_of(opened, dtype=dtype, device=device, attention=attention, layers=layers)


def generator_of(
    opened: Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    attention: Attention = sdpa,
    layers=nn,
) -> OptimizedGenerator:
    """Load the generator of an opened file. Raises KnotForcingError when it does not fit its card."""
    dtype = dtype or fast_dtype(device)
    opened.refuse_misfit(shapes_of(opened.card))
    with torch.device("meta"):
        modules, adapters = WanModel(opened.card, layers), Adapters(opened.card, layers)
    for network in (modules, adapters):
        network.load_state_dict(weights(opened, list(network.state_dict()), dtype, device), strict=True, assign=True)
        network.eval().requires_grad_(False)
    return OptimizedGenerator(opened.card, modules, adapters, attention=attention, dtype=dtype, device=device)


def weights(opened: Checkpoint, names: list[str], dtype: torch.dtype, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """These tensors, read one at a time straight into the type and place they are wanted in: memory for one model and one tensor.

    Raises KnotForcingError for numbers that are none."""
    made, broken = {}, []
    for name in names:
        tensor = whole(opened, name, dtype)
        if not torch.isfinite(tensor).all():
            broken.append(name)
        made[name] = tensor.to(device)
    if broken:
        said = str(dtype).removeprefix("torch.")
        raise KnotForcingError(
            f"{opened.file.path.name} is damaged: {_listing(f'not finite as {said}', sorted(broken))}. Download it again"
            f"{', or choose bf16' if dtype == torch.float16 else ''}."
        )
    return made


def fill(
    path: Path,
    networks: Mapping[str, nn.Module],
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> None:
    """Give networks (on the meta device) their tensors. Every name must fit exactly, or a sentence says which do not.

    `shapes` are those of the tensors, which are looked at only where all fits, each once."""
    wanted = {name: tuple(tensor.shape) for network in networks.values() for name, tensor in network.state_dict().items()}
    missing = sorted(wanted.keys() - shapes.keys())
    surplus = sorted(shapes.keys() - wanted.keys())
    misshapen = sorted(name for name in wanted.keys() & shapes.keys() if wanted[name] != shapes[name])
    if missing or surplus or misshapen:
        problems = [_listing("missing", missing), _listing("left over", surplus)]
        problems += [_listing("of another size", [f"{n} is {shapes[n]}, not {wanted[n]}" for n in misshapen])]
        raise KnotForcingError(
            f"{path.name} does not fit its {' and '.join(networks)}: {'; '.join(filter(None, problems))}. "
            f"The file is damaged or of another model; download it again or choose another."
        )
    made = {name: tensors[name].to(dtype) for name in wanted}
    broken = [name for name, tensor in made.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise KnotForcingError(f"{path.name} is damaged: {_listing('not finite', sorted(broken))}. Download it again.")
    for network in networks.values():
        network.load_state_dict({name: made[name] for name in network.state_dict()}, strict=True, assign=True)


def _listing(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
