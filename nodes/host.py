"""The only file that knows ComfyUI's models, memory and folders.

A generator travels as the host's own MODEL with its card attached and its adapters beside it, so LoRA, fp8, GGUF and offloading are the
host's business; `running` brings it into memory once, together with the decoder, and hands out a stream of kf_core. Nothing of the host is
subclassed or patched. What a run shows while it goes is `live.py`'s.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.ldm.wan.vae
import comfy.model_detection
import comfy.model_management as management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.taesd.taehv
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor, nn

from ..kf_core.checkpoints.alone import is_alone, small_decoder_file
from ..kf_core.checkpoints.checkpoint import open_checkpoint, refuse_without_consent
from ..kf_core.checkpoints.known import KNOWN
from ..kf_core.checkpoints.load import bundled, fast_dtype
from ..kf_core.checkpoints.marks import space_of
from ..kf_core.checkpoints.recognise import recognise
from ..kf_core.checkpoints.vaes import tiny_vae, wans_names
from ..kf_core.checkpoints.weights import as_stored
from ..kf_core.conditioning.anchor import Anchor
from ..kf_core.conditioning.audio import AudioArray
from ..kf_core.errors import KnotForcingError
from ..kf_core.fingerprint import fingerprint
from ..kf_core.footprint import DecoderKind
from ..kf_core.memory import give_back
from ..kf_core.model.adapters import Adapters
from ..kf_core.model.card import ModelCard
from ..kf_core.model.causal import Generator
from ..kf_core.model.kv_cache import KVCache
from ..kf_core.model.protocol import Attention
from ..kf_core.model.rope import Grid
from ..kf_core.model.wan import WanModel
from ..kf_core.presets import TINY, Way
from ..kf_core.settings import RolloutSettings
from ..kf_core.stream import Stream
from ..kf_core.vae.latents import Space
from ..kf_core.vae.streaming import VideoDecoder, prepare
from ..kf_core.vae.tiny import TinyDecoder
from ..kf_core.vae.wan import WanVAE, to_model_space
from .encoders import encoders_for
from .small_decoder import decoder_beside, with_decoder
from .weights import name_of_weights, patches_of, shape_of
from .wires import Recipe

KEY = "knot_forcing"
BUNDLED, BUNDLED_SMALL = "kf-tiny (bundled)", "kf-tiny, small decoder (bundled)"
BUNDLED_MODEL, BUNDLED_VAE = "kf-tiny.safetensors", "kf-tiny-vae.safetensors"
FOLDERS = ("diffusion_models", KEY)
KEPT_BYTES = 16 * 2**30  # of latents and states; an hour at 832x480 is 6 GB of latents
SETTLED_SECONDS = 3600.0  # what was touched within the last hour may be in use, and stays
# what the host's quantised layers keep beside their weights: old names and new ones
QUANTISED = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale", ".weight_scale_2", ".comfy_quant")


@dataclass(frozen=True)
class Identity:
    """What is attached to a MODEL: its card, and a name for its weights before any LoRA."""

    card: ModelCard
    weights: str


# ---- folders ----


def model_files() -> list[str]:
    """Generators that can be chosen: the bundled one, then models/diffusion_models and models/knot_forcing."""
    _know_folder()
    return [BUNDLED, *dict.fromkeys(name for folder in FOLDERS for name in folder_paths.get_filename_list(folder))]


def lora_files() -> list[str]:
    return folder_paths.get_filename_list("loras")


def known_models() -> list[str]:
    """What a file can be said to be."""
    return [row.key for row in KNOWN]


def vae_files() -> list[str]:
    """VAEs that can be chosen: the bundled one with either decoder, models/vae, tiny decoders for Wan 2.1 in models/vae_approx."""
    tiny = filter(_is_tiny_file, folder_paths.get_filename_list("vae_approx"))
    return [BUNDLED, BUNDLED_SMALL, *dict.fromkeys([*folder_paths.get_filename_list("vae"), *tiny])]


def tiny_decoder_file() -> str | None:
    """A tiny decoder for Wan 2.1 that can be loaded, if one is there."""
    return next(filter(_is_tiny_file, vae_files()), None)


def _is_tiny_file(name: str) -> bool:
    return "taew2_1" in name.lower()


def output_file(prefix: str, name: str, width: int, height: int) -> tuple[Path, str]:
    """Where a video called `prefix` and `name` belongs: its path and its subfolder of the host's output folder."""
    try:
        folder, stem, _, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory(), width, height)
    except Exception as problem:  # the host raises a bare Exception for a place outside its output folder
        raise KnotForcingError(
            f"The video cannot be put at '{prefix}'. Give a name, or folder/name, inside ComfyUI's output folder."
        ) from problem
    return Path(folder) / f"{stem}_{name}.mp4", subfolder


def stream_folder() -> Path:
    """Where latents and states are kept, so that a stream outlives its run and the server. The oldest go when there are too many."""
    folder = Path(folder_paths.get_output_directory()) / KEY / ".streams"
    files = sorted(folder.glob("*"), key=lambda file: file.stat().st_mtime, reverse=True)
    kept = 0
    for file in files:
        kept += file.stat().st_size
        if kept > KEPT_BYTES and time.time() - file.stat().st_mtime > SETTLED_SECONDS:
            file.unlink(missing_ok=True)
    return folder


def _know_folder() -> None:
    if KEY not in folder_paths.folder_names_and_paths:
        places = [str(Path(folder_paths.models_dir) / KEY)]
        folder_paths.folder_names_and_paths[KEY] = (places, set(folder_paths.supported_pt_extensions))


def _path_of(name: str) -> Path:
    _know_folder()
    found = next(filter(None, (folder_paths.get_full_path(folder, name) for folder in FOLDERS)), None)
    if found is None:
        raise KnotForcingError(f"The model {name} is not in models/diffusion_models or models/knot_forcing any more. Choose another one.")
    return Path(found)


# ---- models ----


def load_model(name: str, *, lora: str | None = None, known_as: str | None = None, accept_licence: bool = False):
    """A generator's file as the host's MODEL, its adapters beside it and its card attached, and what is to be said of it.

    Opened as the command line opens it. Raises KnotForcingError."""
    path = bundled(BUNDLED_MODEL) if name == BUNDLED else _path_of(name)
    second = None if lora is None else Path(folder_paths.get_full_path_or_raise("loras", lora))
    opened = open_checkpoint(path, lora=second, known_as=known_as, accept_licence=accept_licence)
    with torch.device("meta"):
        adapters = Adapters(opened.card, comfy.ops.manual_cast)
    tensors = as_stored(opened)
    beside = _taken(tensors, adapters)
    model = _host_model(path, opened.card, tensors, dict(opened.file.metadata))
    model.set_attachments(KEY, Identity(opened.card, opened.name_for_recipe))
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


def card_of(model) -> ModelCard:
    """What a MODEL is. Raises KnotForcingError for one that did not come through Load KF Model."""
    return _identity(model).card


def is_bundled(card: ModelCard) -> bool:
    """Whether it is a kf-tiny, which draws for a VAE of its own."""
    return card.name.startswith("kf-tiny")


def load_vae(name: str):
    """A VAE's file, or a tiny decoder's, as the host's VAE; a decoder alone beside kf-tiny's. Raises KnotForcingError."""
    if name == BUNDLED_SMALL:
        return with_decoder(load_vae(BUNDLED), small_decoder_file())
    path = bundled(BUNDLED_VAE) if name == BUNDLED else _vae_path(name)
    weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    wans = wans_names(weights)
    if is_alone(wans.values()):
        return with_decoder(load_vae(BUNDLED), path)
    vae = comfy.sd.VAE(sd={wans[key]: tensor for key, tensor in weights.items()}, metadata=metadata)
    vae.throw_exception_if_invalid()
    vae.patcher.cached_patcher_init = (comfy.sd.load_vae_patcher, (str(path), metadata, None))  # as the host's own loader sets it
    refuse_undecodable(vae)
    return vae


def is_kf_tinys(vae_name: str, vae) -> bool:
    """Whether a VAE was chosen that makes pictures of kf-tiny's latents only."""
    return vae_name == BUNDLED or decoder_beside(vae) is not None


def _vae_path(name: str) -> Path:
    return Path(folder_paths.get_full_path("vae", name) or folder_paths.get_full_path_or_raise("vae_approx", name))


def refuse_undecodable(vae) -> None:
    """Raises KnotForcingError unless the VAE makes pictures of Wan 2.1's latents."""
    if _is_tiny(vae):
        _space(vae)
    else:
        refuse_other_vae(vae)


def refuse_other_vae(vae) -> None:
    """Raises KnotForcingError unless the VAE is Wan 2.1's, at any width, with its encoder."""
    network = vae.first_stage_model
    if _is_tiny(vae):
        raise KnotForcingError(
            "The connected VAE is a tiny decoder: it makes pictures in Streaming Decode, but cannot encode the portrait. "
            "Load wan_2.1_vae.safetensors with Load VAE and connect that one here."
        )
    if not isinstance(network, comfy.ldm.wan.vae.WanVAE) or vae.latent_channels != 16:
        raise KnotForcingError(
            f"The connected VAE is a {type(network).__name__} of {vae.latent_channels} channels, and the generator draws Wan 2.1 latents "
            f"of 16. Connect the VAE of Load KF Model, or load wan_2.1_vae.safetensors."
        )


def decoder_kind(vae) -> DecoderKind:
    """What makes the pictures, as its memory is computed."""
    if _is_tiny(vae):
        return TINY
    beside = decoder_beside(vae)
    return DecoderKind(dim=_width(vae.first_stage_model.state_dict())) if beside is None else DecoderKind.of(beside)


def _is_tiny(vae) -> bool:
    return isinstance(vae.first_stage_model, comfy.taesd.taehv.TAEHV) and vae.latent_channels == 16


def _space(vae) -> Space:
    """Which latents a tiny decoder wants. The host says float16 files from others by the scaling it gives them (a wrong one for Wan)."""
    _, known_file = getattr(vae.patcher, "cached_patcher_init", None) or (None, ("",))
    was_half = vae.first_stage_model.latent_format is not None
    return space_of(Path(known_file[0] or "").name, is_half=was_half)


def encode_portrait(vae, prepared: Tensor) -> Anchor:
    """A prepared portrait [1, 3, 1, h, w] as anchor, through the host's VAE."""
    refuse_other_vae(vae)
    raw = vae.encode(prepared[0, :, 0].movedim(0, -1)[None])
    return Anchor(to_model_space(raw.float().cpu().reshape(1, 16, 1, *raw.shape[-2:])))


def _host_model(path: Path, card: ModelCard, tensors: dict[str, Tensor], metadata: dict[str, str]):
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
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload)
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


def _identity(model) -> Identity:
    identity = model.get_attachment(KEY) if hasattr(model, "get_attachment") else None
    if identity is None:
        raise KnotForcingError(
            "The connected MODEL has no Knot Forcing card. Put Load KF Model in between: choose the file there, or connect it."
        )
    return identity


# ---- running ----


@contextmanager
def running(recipe: Recipe, vae, way: Way | None = None) -> Iterator[Stream]:
    """The recipe as a stream of kf_core, with generator, adapters and decoder in memory while it lasts.

    `way`: how the pictures are made; None: a chunk at a time, beside the drawing."""
    refuse_undecodable(vae)
    model, identity = recipe.model, _identity(recipe.model)
    card, device = identity.card, recipe.model.load_device
    dtype = model.model.get_dtype_inference()
    beside = model.get_nested_additional_models()
    latent = recipe.anchor.latent
    decoder_dtype = fast_dtype(device) if management.is_device_cpu(device) else vae.vae_dtype
    frames, at_once = recipe.settings.drawn, None if way is None else way.at_once
    drawing = model.memory_required((1, card.in_channels, frames, *latent.shape[-2:]))
    decoding = vae.memory_used_decode((1, 16, at_once or frames, *latent.shape[-2:]), decoder_dtype)
    needed = cache_bytes(card, recipe.settings, latent.shape[-2:], dtype) + vae.model_size()
    needed += drawing + decoding if way is None or way.is_beside else max(drawing, decoding)
    encoders = encoders_for(card, recipe.guidance, recipe.settings)
    led = () if recipe.guidance.vace is None else (recipe.guidance.vace.patcher,)
    management.load_models_gpu([model, *beside, *encoders.patchers, *led], memory_required=needed)
    model.pre_run()
    try:
        adapters = next((patcher.model for patcher in model.get_additional_models_with_key(KEY)), None)
        tree = HostModules(model.model.diffusion_model, fingerprint(identity.weights, patches_of(model)))
        attention = _attention(model.model_options.get("transformer_options", {}))
        vace = None if recipe.guidance.vace is None else recipe.guidance.vace.network
        yield Stream(
            model=Generator(card, tree, adapters, vace=vace, attention=attention, dtype=dtype, device=device),
            decoder=_decoder(vae, decoder_dtype, device, at_once),
            anchor=Anchor(latent.to(device)),
            driving=recipe.guidance.driving,
            settings=recipe.settings,
            seed=recipe.seed,
            seconds=recipe.seconds,
            audio_encoder=encoders.hears,
            text_encoder=encoders.reads,
            control_encoder=None if vace is None else _wan_vae(recipe.guidance.control_vae, decoder_dtype, device),
        )
    finally:
        model.cleanup()
        give_back()


class HostModules:
    """The host's module tree as the causal forward wants it: the same modules, called as the host calls them."""

    def __init__(self, tree: nn.Module, weights: str) -> None:
        self._tree = tree
        self.name_for_recipe = weights

    def patch_embedding(self, latents: Tensor) -> Tensor:
        return self._tree.patch_embedding(latents.float()).to(latents.dtype)  # the host keeps this one in float32

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tree, name)


def cache_bytes(card: ModelCard, settings: RolloutSettings, latent_size: tuple[int, int], dtype: torch.dtype) -> int:
    """What the generator's memory of the past takes, with the room for the frames being drawn: as the cache itself counts it."""
    heads = dict(layers=card.layers, heads=card.heads, head_dim=card.dim // card.heads)
    grid = Grid(latent_size[0] // 2, latent_size[1] // 2)
    one = KVCache(settings, batch=1, grid=grid, dtype=dtype, device="meta", **heads).num_bytes
    return 2 * one if settings.is_guided else one


def _decoder(vae, dtype: torch.dtype, device: torch.device, at_once: int | None) -> VideoDecoder:
    """kf_core's decoder with the weights of the host's VAE: it keeps its past outside itself, so streams do not disturb each other.

    Where another decoder hangs beside the VAE, that one."""
    weights = vae.first_stage_model.state_dict()
    if _is_tiny(vae):
        return TinyDecoder(tiny_vae(Path("the VAE"), weights, _space(vae), dtype, device), at_once)
    if (beside := decoder_beside(vae)) is not None:
        return VideoDecoder(prepare(copy.deepcopy(beside), dtype, device), at_once)
    return VideoDecoder(_wan_vae(vae, dtype, device), at_once)


def _wan_vae(vae, dtype: torch.dtype, device: torch.device) -> WanVAE:
    weights = vae.first_stage_model.state_dict()
    with torch.device("meta"):
        ours = WanVAE(dim=_width(weights))
    ours.load_state_dict({key: weights[key].to(device=device, dtype=dtype) for key in ours.state_dict()}, strict=True, assign=True)
    return prepare(ours.eval().requires_grad_(False), dtype, device)


def _width(weights: dict[str, Tensor]) -> int:
    return weights["decoder.head.0.gamma"].shape[0]


def _attention(options: dict) -> Attention:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return optimized_attention(q, k, v, q.shape[1], mask=mask, skip_reshape=True, skip_output_reshape=True, transformer_options=options)

    return attend


def resampled(audio: dict, sample_rate: int, channels: int) -> np.ndarray:
    """The host's AUDIO at another rate: [channels, n]."""
    source = AudioArray(audio["waveform"][0].float().cpu().numpy(), int(audio["sample_rate"]))
    return np.concatenate(list(source.blocks(sample_rate, channels))).T


def withheld(why: str) -> ExecutionBlocker:
    """Stands for an output that was not made: nodes that wait for it stop, and show `why`."""
    return ExecutionBlocker(why)


def peak_vram_mib() -> int | None:
    """The most graphics memory this process has held; None without a graphics card."""
    return round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() and not management.cpu_mode() else None
