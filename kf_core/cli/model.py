"""The arguments that choose model, size and precision, shared by the commands that run one."""

import argparse
import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..checkpoints.checkpoint import Checkpoint, open_checkpoint
from ..checkpoints.decoder_only import small_decoder_file, small_decoder_for
from ..checkpoints.known_models import KNOWN
from ..checkpoints.load import bundled, generator_of
from ..checkpoints.shards import files_of
from ..checkpoints.umt5 import read_umt5
from ..checkpoints.vace import load_vace
from ..checkpoints.vaes import load_decoder, load_vae
from ..encoders.text import TextEncoder
from ..encoders.umt5 import UMT5, encoded_ahead
from ..encoders.wav2vec2 import read_encoder
from ..errors import KnotForcingError
from ..models.attention import ATTENTIONS, attention_called
from ..models.card import ModelCard
from ..models.causal import Generator
from ..models.compiled import compile_blocks
from ..models.optimized_forward import OptimizedGenerator
from ..outputs import Files
from ..planning.memory import DecoderKind
from ..planning.presets import AUTO, CHOICES, Plan, plan, reads_on_device
from ..precision import PRECISIONS as NAMED
from ..precision import fast_dtype
from ..schedule import few_steps
from ..session.executor import BackgroundExecutor, Executor, InlineExecutor, executor_for
from ..session.stream import Stream
from ..settings import RolloutSettings
from ..vae.streaming import VideoDecoder, prepare
from ..vae.wan import SPATIAL_STRIDE, WanVAE

PRECISIONS = {"auto": None, **NAMED}
OWN = "kf-tiny"  # the model that brings its VAE along
METHODS = ("own", "knot-forcing")
DECODING = ("auto", "beside", "in-turn")

SMALL = "small"  # stands for kf-tiny's small decoder, whatever folder the pack is in


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """All networks that a stream needs, and the size they are asked for."""

    generator: Generator
    vae: WanVAE  # encodes the portrait
    decoder: VideoDecoder  # makes the frames, by the same VAE or by a tiny one
    audio_encoder: torch.nn.Module | None
    width: int
    height: int
    settings: RolloutSettings
    tuning: Plan
    remarks: tuple[str, ...] = ()  # what is to be said of the model and its file

    def has_faster_decoder(self) -> bool:
        """Whether the VAE makes the frames on a CPU while kf-tiny's small decoder is there and would fit."""
        by_vae = self.decoder.device.type == "cpu" and isinstance(self.decoder.vae, WanVAE)
        return by_vae and small_decoder_for(self.vae.state_dict()) is not None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help="model file (default: the bundled kf-tiny)")
    group.add_argument("--lora", type=Path, metavar="FILE", help="a second file that its authors publish beside it (LongLive's lora.pt)")
    group.add_argument("--known-as", metavar="NAME", help=f"what it is, where the file does not tell: {', '.join(r.key for r in KNOWN)}")
    group.add_argument("--accept-licence", action="store_true", help="for models that may not be used for everything: you read its licence")
    group.add_argument("--method", choices=METHODS, default=METHODS[0], help="own: as the model's authors roll it out; or by Knot Forcing")
    group.add_argument("--vae", type=Path, metavar="FILE", help="its VAE, where it is not kf-tiny: wan_2.1_vae.safetensors")
    group.add_argument(
        "--decoder",
        type=Path,
        metavar="FILE",
        help="a faster and softer decoder: taew2_1, lighttaew2_1, or small (kf-tiny's of half the width)",
    )
    group.add_argument("--audio-encoder", type=Path, metavar="FOLDER", help="wav2vec2-base-960h, for models that hear through it")
    group.add_argument(
        "--text-encoder", type=Path, metavar="PATH", help="UMT5, for models that read: a folder, or umt5_xxl_fp16.safetensors"
    )
    group.add_argument("--control-module", type=Path, metavar="FILE", help="VACE module, for --control: Wan2_1-VACE_module_1_3B_bf16")
    group.add_argument("--width", type=int, metavar="PIXELS", help="width of the video (default: the model's own)")
    group.add_argument("--height", type=int, metavar="PIXELS", help="height of the video (default: the model's own)")
    group.add_argument("--steps", type=int, metavar="N", help="denoising steps per chunk: fewer is faster (default: the model's own, 4)")
    group.add_argument(
        "--guidance",
        type=float,
        metavar="1..30",
        help="how far to lead away from the negative prompt: 1 is off, more takes twice the time (default: the model's own, which is 1 "
        "for all that denoise in few steps)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: bf16 where this machine computes in it, else fp32; or what the environment variable KF_PRECISION says",
    )
    group.add_argument("--attention", choices=ATTENTIONS, default=ATTENTIONS[0], help="flash or sage: where that package is installed")
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the blocks; slow to begin with, needs a compiler; untested on a graphics card",
    )
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu, also where there is a graphics card)")
    group.add_argument(
        "--tune", choices=CHOICES, default=AUTO, help="what to fit the decoding to; auto looks at the device and says what it takes"
    )
    group.add_argument("--decoder-device", metavar="DEVICE", help="where frames are made of what is denoised (default: --device)")
    group.add_argument(
        "--decoding",
        choices=DECODING,
        default=DECODING[0],
        help="beside: frames are made while the next chunk is denoised; in-turn: after it; auto: beside where both run at once",
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")


def files_read(chosen: argparse.Namespace) -> dict[str, Files]:
    """All files that these arguments name, and those that come with them, by the words that name them."""
    names = ("lora", "vae", "decoder", "audio_encoder", "text_encoder", "control_module")
    files: dict[str, Files] = {f"--{name.replace('_', '-')}": getattr(chosen, name, None) for name in names}
    model = chosen.checkpoint
    if model is not None:
        files["--checkpoint"] = [*files_of(model), _vae_beside(model)] if os.path.exists(model) else model
    return files | {"the pack's own model": bundled("kf-tiny.safetensors").parent}


def open_model(chosen: argparse.Namespace) -> Checkpoint:
    """Look at the generator's file; no weight is read. Raises KnotForcingError."""
    return open_checkpoint(
        chosen.checkpoint or bundled("kf-tiny.safetensors"),
        lora=chosen.lora,
        known_as=chosen.known_as,
        accept_licence=chosen.accept_licence,
    )


def settings_for(chosen: argparse.Namespace, card: ModelCard) -> RolloutSettings:
    """How the model is rolled out. Raises KnotForcingError."""
    settings = card.under_knot_forcing() if chosen.method == METHODS[1] else card.rollout
    if chosen.steps is not None:
        settings = replace(settings, schedule=few_steps(chosen.steps, settings.shift), first_schedule=None)
    return settings if chosen.guidance is None else replace(settings, guidance=chosen.guidance)


def load_model(chosen: argparse.Namespace, opened: Checkpoint | None = None) -> LoadedModel:
    """Load what the arguments name. `opened`: the generator's file, where it was opened before. Raises KnotForcingError."""
    if chosen.threads is not None:
        set_threads(chosen.threads)
    device = device_called(chosen.device)
    dtype = PRECISIONS[chosen.precision] or fast_dtype(device)
    opened = opened or open_model(chosen)
    attention, fallback = attention_called(chosen.attention, device)
    generator = generator_of(opened, dtype=dtype, device=device, attention=attention)
    card = generator.card
    if chosen.control_module is not None:
        generator = generator.with_vace(load_vace(chosen.control_module, card, dtype=dtype, device=device))
    width, height = size_of(chosen, generator)
    settings = settings_for(chosen, card)
    encoder = None
    if card.audio is not None and card.audio.kind == "wav2vec2":
        if chosen.audio_encoder is None:
            raise KnotForcingError(
                f"{card.name} hears through wav2vec 2.0. Give its folder (facebook/wav2vec2-base-960h) by --audio-encoder."
            )
        encoder = read_encoder(chosen.audio_encoder).to(device)
    vae = load_vae(_vae_file(chosen, card.name), dtype=dtype, device=device)
    decoders = _decoders(chosen, vae, dtype, device)
    decoder, tuning, fitted = fit(chosen, generator, settings, decoders, width=width, height=height)
    remarks = tuple(filter(None, (card.note, card.restricted, *opened.remarks, fallback, *fitted)))
    return LoadedModel(generator, vae, decoder, encoder, width, height, settings, tuning, remarks)


def fit(
    chosen: argparse.Namespace,
    generator: OptimizedGenerator,
    settings: RolloutSettings,
    decoders: Sequence[VideoDecoder],
    *,
    width: int,
    height: int,
) -> tuple[VideoDecoder, Plan, list[str]]:
    """Make the generator as fast as was asked for, and choose by which of `decoders`, the better one first, and how frames are made.

    Sentences say what came of it."""
    kinds = tuple(DecoderKind.of(decoder.vae) for decoder in decoders)
    tuning = plan(
        chosen.tune, generator.card, settings, device=generator.device, dtype=generator.dtype, width=width, height=height, decoders=kinds
    )
    accelerated = [compile_blocks(generator)] if chosen.compile else []
    decoder = decoders[kinds.index(tuning.decode_plan.decoder)]
    decoder.at_once = tuning.decode_plan.at_once
    return decoder, tuning, [*([] if tuning.is_usual else [tuning.why]), *accelerated]


def worker(chosen: argparse.Namespace, stream: Stream, tuning: Plan | None = None) -> Executor:
    """Who makes the frames."""
    match chosen.decoding:
        case "beside":
            return BackgroundExecutor(stream.model.device)
        case "in-turn":
            return InlineExecutor()
    has_room = tuning is None or tuning.decode_plan.overlap_decode
    return executor_for(stream.model.device, decoder_device=stream.decoder.device, has_room=has_room)


def read_prompts(chosen: argparse.Namespace, prompts: Sequence[str]) -> TextEncoder | None:
    """The prompts as a model reads them, encoded before it is loaded, because both would not fit in the memory of most machines."""
    if chosen.text_encoder is None:
        return None
    dtype = torch.float32 if chosen.precision == "fp32" else torch.bfloat16
    device = device_called(chosen.device)
    place = device if reads_on_device(chosen.tune, device) else torch.device("cpu")
    return encoded_ahead(UMT5(*read_umt5(chosen.text_encoder, dtype=dtype, device=place)), prompts)


def set_threads(count: int) -> None:
    """Raises KnotForcingError for a count that is none."""
    if count < 1:
        raise KnotForcingError(f"{count} threads cannot compute. Give --threads 1 or more.")
    torch.set_num_threads(count)


def _decoders(chosen: argparse.Namespace, vae: WanVAE, dtype: torch.dtype, device: torch.device) -> list[VideoDecoder]:
    """What can make the frames, the better one first: what was given, and nothing else; else the VAE and its small decoder.

    The VAE is there once more where it works on another device than the encoder."""
    place = device if chosen.decoder_device is None else device_called(chosen.decoder_device)
    words = dict(beside=vae, dtype=dtype, device=place)
    if chosen.decoder is not None:
        return [load_decoder(small_decoder_file() if str(chosen.decoder) == SMALL else chosen.decoder, **words)]
    own = VideoDecoder(vae if place == device else prepare(copy.deepcopy(vae), dtype, place))
    small = small_decoder_for(vae.state_dict()) if chosen.tune == "cpu" else None  # only this preset may choose it
    return [own] if small is None else [own, load_decoder(small, **words)]


def _vae_file(chosen: argparse.Namespace, name: str) -> Path | None:
    if chosen.vae is not None:
        return chosen.vae
    if chosen.checkpoint is not None:
        beside = _vae_beside(chosen.checkpoint)
        if beside.exists():
            return beside
    if not name.startswith(OWN):
        raise KnotForcingError(f"{name} needs a VAE to make frames of what it denoises. Give wan_2.1_vae.safetensors by --vae.")
    return None


def _vae_beside(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}-vae.safetensors")


def size_of(chosen: argparse.Namespace, generator: Generator) -> tuple[int, int]:
    """Width and height of the video in pixels. Raises KnotForcingError."""
    width, height = chosen.width or generator.card.width, chosen.height or generator.card.height
    _, p, q = generator.modules.patch_size
    for name, size, step in (("width", width, q * SPATIAL_STRIDE), ("height", height, p * SPATIAL_STRIDE)):
        if size < step or size % step:
            nearest = max(step, round(size / step) * step)
            raise KnotForcingError(
                f"A {name} of {size} pixels does not fit {generator.card.name}: it must be a multiple of {step}. Give {nearest}."
            )
    return width, height


def remark_on_device(chosen: argparse.Namespace) -> str | None:
    """Says that there is a graphics card where the processor is to do the work."""
    if torch.device(chosen.device).type != "cpu":
        return None
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = next((name for name, is_there in there.items() if is_there), None)
    return None if name is None else f"This runs on the processor, and there is a graphics card: --device {name} uses it."


def device_called(name: str) -> torch.device:
    """Raises KnotForcingError where it is not there."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise KnotForcingError(f"The device {name} is not there ({str(problem).splitlines()[0][:100]}). Give --device cpu.") from problem
    return device
