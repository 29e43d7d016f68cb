"""A file of weights becomes a generator: strictly, nothing missing, nothing left over.

Reading is `read.py`'s, names are `key_maps.py`'s, cards are the file's header or `known.py`'s.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import KnotForcingError
from ..model.adapters import Adapters
from ..model.card import CARD_KEY, ModelCard
from ..model.causal import Attention, Generator, sdpa
from ..model.wan import WanModel
from .key_maps import unpacked, wan_name
from .known import recognise
from .read import read_tensors

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
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    attention: Attention = sdpa,
    layers=nn,
) -> Generator:
    """Load a generator; None: the bundled kf-tiny. `dtype` None: bfloat16 where the device has it in hardware, else float32.

    Raises KnotForcingError when the file is not a generator this version knows, or does not fit its card."""
    path = Path(path) if path else bundled("kf-tiny.safetensors")
    tensors, metadata = read_tensors(path)
    tensors = {wan_name(name): tensor for name, tensor in unpacked(tensors).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
    card = ModelCard.from_json(metadata[CARD_KEY]) if CARD_KEY in metadata else recognise(shapes, path.name)
    if card is None:
        raise KnotForcingError(
            f"{path.name} is not a generator this version knows: it has {len(shapes)} tensors and no Knot Forcing card. "
            f"Use kf-tiny, or one of the checkpoints in docs/checkpoints.md."
        )
    with torch.device("meta"):
        modules, adapters = WanModel(card, layers), Adapters(card, layers)
    dtype = dtype or fast_dtype(device)
    fill(path, {"generator": modules, "adapters": adapters}, tensors, shapes, dtype)
    modules, adapters = (m.to(device).eval().requires_grad_(False) for m in (modules, adapters))
    return Generator(card, modules, adapters, attention=attention, dtype=dtype, device=device)


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the device computes in it (CPUs with AVX512-bf16 or AMX, recent GPUs), else float32."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.float32


def fill(
    path: Path,
    networks: Mapping[str, nn.Module],
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
) -> None:
    """Give networks (on the meta device) their tensors. Every name must fit exactly, or a sentence says which do not."""
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
    broken = [name for name in wanted if tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all()]
    if broken:
        raise KnotForcingError(f"{path.name} is damaged: {_listing('not finite', sorted(broken))}. Download it again.")
    for network in networks.values():
        network.load_state_dict({name: tensors[name].to(dtype) for name in network.state_dict()}, strict=True, assign=True)


def _listing(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NAMES_SHOWN])}{more})"
