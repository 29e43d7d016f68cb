"""A generator as the host's own MODEL, with its card attached and its adapters beside it.

So LoRA, fp8, GGUF and offloading are the host's business. Nothing of the host is subclassed or patched.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import comfy.model_detection
import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor, nn

from ...kf_core.checkpoints.checkpoint import open_checkpoint, refuse_without_consent
from ...kf_core.checkpoints.detect import recognise
from ...kf_core.checkpoints.known_models import KNOWN
from ...kf_core.checkpoints.load import bundled
from ...kf_core.checkpoints.weights import as_stored
from ...kf_core.errors import KnotForcingError
from ...kf_core.models.adapters import Adapters
from ...kf_core.models.card import ModelCard
from ...kf_core.models.wan import WanModel
from ...kf_core.precision import fast_dtype
from .folders import BUNDLED, KEY, lora_path, model_path
from .weights import name_of_weights, shape_of

BUNDLED_FILE = "kf-tiny.safetensors"
# what the host's quantised layers keep beside their weights: old names and new ones
QUANTISED = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale", ".weight_scale_2", ".comfy_quant")


@dataclass(frozen=True)
class Identity:
    """What is attached to a MODEL: its card, and a name for its weights before any LoRA."""

    card: ModelCard
    weights: str


def known_models() -> list[str]:
    """What a file can be said to be."""
    return [row.key for row in KNOWN]


def load_model(
    name: str, *, lora: str | None = None, known_as: str | None = None, accept_licence: bool = False, disable_dynamic: bool = False
):
    """A generator's file as the host's MODEL, its adapters beside it and its card attached, and what is to be said of it.

    Opened as the command line opens it. `disable_dynamic`: as in the host's own loader, which gives its weights fixed places in memory.
    Raises KnotForcingError."""
    path = bundled(BUNDLED_FILE) if name == BUNDLED else model_path(name)
    second = None if lora is None else lora_path(lora)
    opened = open_checkpoint(path, lora=second, known_as=known_as, accept_licence=accept_licence)
    with torch.device("meta"):
        adapters = Adapters(opened.card, comfy.ops.manual_cast)
    tensors = as_stored(opened)
    beside = _taken(tensors, adapters)
    model = _host_model(path, opened.card, tensors, dict(opened.file.metadata), disable_dynamic)
    again = partial(load_model, lora=lora, known_as=known_as, accept_licence=accept_licence)
    model.cached_patcher_init = (again, (name,), 0)  # as the host's own loader sets it: nodes such as TorchCompileModel load once more
    model.set_attachments(KEY, Identity(opened.card, opened.content_id))
    _fill(path, adapters, beside)
    if beside:
        patcher = comfy.model_patcher.ModelPatcher(adapters, load_device=model.load_device, offload_device=model.offload_device)
        model.set_additional_models(KEY, [patcher])
    return model, opened.remarks


def adopt(model, *, known_as: str | None = None, accept_licence: bool = False):
    """A MODEL that the host loaded (UNETLoader, GGUF, with or without LoRA), told by its shapes, and what is to be said of it.

    Raises KnotForcingError."""
    if model.get_attachment(KEY) is not None:
        return model, ()
    tree = getattr(model.model, "diffusion_model", nn.Module())
    found = recognise({key: shape_of(tensor) for key, tensor in tree.named_parameters()}, known_as=known_as)
    if found is None or found.card.audio is not None:
        raise KnotForcingError(
            f"The connected MODEL is a {type(model.model).__name__}, and not a causal Wan 2.1 generator that this version knows. "
            f"Choose a file in Load KF Model instead, or connect a Self-Forcing checkpoint."
        )
    refuse_without_consent(found.card, accept_licence)
    model = model.clone()
    model.set_attachments(KEY, Identity(found.card, name_of_weights(model)))
    assumed = f"The connected MODEL does not say what it is; by its sizes it is taken for {found.card.name}. If it is another, say which."
    return model, () if known_as or found.row is None else (assumed,)


def identity_of(model) -> Identity:
    identity = model.get_attachment(KEY) if hasattr(model, "get_attachment") else None
    if identity is None:
        raise KnotForcingError(
            "The connected MODEL has no Knot Forcing card. Put Load KF Model in between: choose the file there, or connect it."
        )
    return identity


def card_of(model) -> ModelCard:
    """What a MODEL is. Raises KnotForcingError for one that did not come through Load KF Model."""
    return identity_of(model).card


def is_bundled(card: ModelCard) -> bool:
    """Whether it is a kf-tiny, which was made for a VAE of its own."""
    return card.name.startswith("kf-tiny")


def _host_model(path: Path, card: ModelCard, tensors: dict[str, Tensor], metadata: dict[str, str], disable_dynamic: bool):
    """As the host's own loader does it, but at the card's sizes, which the host would have to guess."""
    with torch.device("meta"):
        _refuse_misfit(path, WanModel(card), tensors)
    tensors, metadata = comfy.utils.convert_old_quants(tensors, "", metadata=metadata)
    config = comfy.model_detection.model_config_from_unet(tensors, "", metadata=metadata)
    if config is None:
        raise KnotForcingError(f"{path.name} holds no Wan 2.1 generator. Download it again, or choose another file.")
    config.unet_config.update(num_heads=card.heads, freq_dim=card.freq_dim, text_dim=card.text.width)
    device, offload = management.get_torch_device(), management.unet_offload_device()
    supported = list(config.supported_inference_dtypes)
    is_quantised = config.quant_config is not None
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(tensors),
        supported_dtypes=supported,
        weight_dtype=None if is_quantised else comfy.utils.weight_dtype(tensors),
    )
    if management.is_device_cpu(device) and not is_quantised:
        dtype = fast_dtype(device)  # the host would take float32 on every CPU
        cast = None
    else:
        cast = management.unet_manual_cast(None if is_quantised else dtype, device, supported)
    config.set_inference_dtype(dtype, cast)
    model = config.get_model(tensors, "")
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=device, offload_device=offload)
    if not management.is_device_cpu(offload):
        model.to(offload)
    model.load_model_weights(dict(tensors), "", assign=patcher.is_dynamic())
    return patcher


def _taken(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Take a network's tensors out of a file's; of scaled eight bits, the values they stand for."""
    taken = {key: tensors.pop(key) for key in network.state_dict() if key in tensors}
    for key in taken:
        layer = key.removesuffix("weight")
        scales = [tensors.pop(layer + mark) for mark in ("scale_weight", "weight_scale") if layer + mark in tensors]
        if key.endswith("weight") and scales:
            taken[key] = taken[key].float() * scales[0].float()
            for mark in ("scale_input", "input_scale"):
                tensors.pop(layer + mark, None)
    return taken


def _fill(path: Path, adapters: Adapters, tensors: dict[str, Tensor]) -> None:
    _refuse_misfit(path, adapters, tensors)
    adapters.load_state_dict({key: tensor.clone() for key, tensor in tensors.items()}, strict=True, assign=True)
    adapters.eval().requires_grad_(False)


def _refuse_misfit(path: Path, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raises KnotForcingError unless the file has the network's tensors, each of its size, and beside them only scales."""
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    beside = {key for key in tensors if key.endswith(QUANTISED) and _weight_of(key) in tensors} | {"scaled_fp8"}
    packed = {_weight_of(key) for key in beside}  # laid out in the host's way, and checked by it
    missing, surplus = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys() - beside)
    misshapen = sorted(key for key in wanted.keys() & tensors.keys() - packed if wanted[key] != tuple(tensors[key].shape))
    if missing or surplus or misshapen:
        problems = (("missing", missing), ("left over", surplus), ("of another size", misshapen))
        said = "; ".join(f"{len(keys)} {what} ({', '.join(keys[:3])} ...)" for what, keys in problems if keys)
        raise KnotForcingError(f"{path.name} does not fit its card: {said}. The file is damaged or of another model; download it again.")


def _weight_of(key: str) -> str:
    """The weight that a scale belongs to."""
    return key.rpartition(".")[0] + ".weight"
