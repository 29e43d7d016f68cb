"""Rolls out the authors' own code and ours from one file of random weights, and says how far apart they are.

    python -m tests.reference.compare causal-forcing-framewise ~/Causal-Forcing      # github.com/thu-ml/Causal-Forcing
    python -m tests.reference.compare longlive-infinity ~/LongLive                   # github.com/NVlabs/LongLive, branch v1.0
    python -m tests.reference.compare livetalk ~/LiveTalk                            # github.com/GAIR-NLP/LiveTalk

For checkpoints of which there is no recording. Their code is imported from a checkout and run as it is, in float32 on the CPU, at small
sizes (dim 256, 24 tokens a frame). What it takes for granted of a GPU is replaced from outside: flash attention by PyTorch's, the sizes
of its caches (1560 tokens, 12 heads) by ours; text encoder, VAE and whatever it imports beside them by nothing. Our side goes through a
file in the authors' container, `load_generator` and the settings of the table. Needs diffusers; nothing of theirs is kept.
"""

import argparse
import importlib.machinery
import importlib.util
import sys
import tempfile
import types
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import MagicMock

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from kf_core.checkpoints.load import load_generator
from kf_core.conditioning.anchor import Anchor
from kf_core.sampling.rollout import rollout
from kf_core.timeline import LatentSpan, groups
from kf_core.types import ChunkConditioning, Signal, TextContext

from ..kf_core.checkpoints import containers
from .recordings import relative_error, take

DIM, HEADS, TEXT, WORDS, HEIGHT, WIDTH = 256, 2, 24, 16, 8, 12
TOKENS = HEIGHT * WIDTH // 4
SMALL = dict(dim=DIM, ffn_dim=384, num_heads=HEADS, text_dim=TEXT, freq_dim=256, out_dim=16, patch_size=(1, 2, 2))
FRAMES = 21


@dataclass
class Drawn:
    """Every draw of noise their code makes, in order."""

    draws: list[Tensor] = field(default_factory=list)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(11))

    def __call__(self, like: Tensor, *_, **__) -> Tensor:
        self.draws.append(torch.randn(like.shape, generator=self.generator))
        return self.draws[-1]


@dataclass(frozen=True, eq=False)
class Tape:
    """Their noise, as our rollout asks for it: the first draw of all frames, then one draw for each later step of a chunk."""

    first: Tensor  # [b, c, f, h, w]
    later: dict[tuple[int, int], Tensor]  # (first frame of the chunk, step) -> [b, c, f, h, w]

    def __call__(self, span: LatentSpan, step: int) -> Tensor:
        return self.first[:, :, span.start : span.stop] if step == 0 else self.later[span.start, step]


@dataclass(frozen=True, eq=False)
class Given:
    """The same words, and the same sound, for ours."""

    text: TextContext
    heard: Tensor | None = None  # [1, frames, width]

    def window(self, span: LatentSpan) -> ChunkConditioning:
        audio = None
        if self.heard is not None:
            steps = torch.tensor([max(0, step) for step in groups(span)])
            audio = Signal(self.heard[:, steps].unflatten(1, (span.length, 4)).flatten(2))
        return ChunkConditioning(span=span, text=self.text, audio=audio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(COMPARED))
    parser.add_argument("checkout", type=Path, help="where the authors' repository lies")
    parser.add_argument("--ours-as", choices=sorted(COMPARED), help="run ours by another row: would a mistake be seen?")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        error = COMPARED[chosen.model](chosen.model, chosen.checkout.resolve(), chosen.ours_as or chosen.model)
    print(f"{chosen.model}{f', ours as {chosen.ours_as}' if chosen.ours_as else ''}: {FRAMES} latent frames, relative error {error:.1e}")


def compare_student(key: str, checkout: Path, ours_as: str) -> float:
    """The Self-Forcing family: their pipeline's `inference` over their causal model."""
    card = _row_card(key)
    settings = card.rollout
    window = -1 if settings.window is None else settings.window + settings.pinned
    _open(checkout, packages=("wan", "wan.modules", "utils", "demo_utils", "pipeline"))
    _stub("wan.modules.tokenizers", "wan.modules.vae", "wan.modules.t5", "demo_utils.memory", "utils.memory")
    module = "wan.modules.causal_model_infinity" if settings.pinned_place == "in front" else "wan.modules.causal_model"
    causal, parts = importlib.import_module(module), importlib.import_module("wan.modules.model")
    causal.attention = parts.flash_attention = _attention
    theirs = causal.CausalWanModel(
        model_type="t2v", in_dim=16, num_layers=3, text_len=WORDS, local_attn_size=window, sink_size=settings.pinned, **SMALL
    ).eval()
    _fill(theirs)
    for part in theirs.modules():
        if hasattr(part, "max_attention_size"):
            part.max_attention_size = FRAMES * TOKENS if window < 0 else window * TOKENS
    theirs.num_frame_per_block = settings.chunk

    wrapping = importlib.import_module("utils.wan_wrapper")
    wrapper = wrapping.WanDiffusionWrapper.__new__(wrapping.WanDiffusionWrapper)
    nn.Module.__init__(wrapper)
    wrapper.model, wrapper.uniform_timestep, wrapper.seq_len = theirs, False, FRAMES * TOKENS
    wrapper.scheduler = wrapping.FlowMatchScheduler(shift=5.0, sigma_min=0.0, extra_one_step=True)  # as its __init__ does
    wrapper.scheduler.set_timesteps(1000, training=True)
    wrapper.post_init()
    text = torch.randn(1, WORDS, TEXT, generator=torch.Generator().manual_seed(5))

    def few(schedule):
        return [round(sigma / (5 - 4 * sigma) * 1000) for sigma, _ in schedule]  # the steps of their configuration files

    args = types.SimpleNamespace(
        denoising_step_list=few(settings.schedule),
        denoising_step_list_first_chunk=few(settings.first_schedule) if settings.first_schedule else None,
        warp_denoising_step=True,
        num_frame_per_block=settings.chunk,
        independent_first_frame=False,
        context_noise=0,
        model_kwargs=types.SimpleNamespace(local_attn_size=window, sink_size=settings.pinned),
    )
    piping = importlib.import_module("pipeline.causal_inference")

    def words(text_prompts):
        return {"prompt_embeds": text}

    pipeline = piping.CausalInferencePipeline(args, "cpu", generator=wrapper, text_encoder=words, vae=MagicMock())
    pipeline.num_transformer_blocks, pipeline.frame_seq_length = 3, TOKENS
    pipeline._initialize_kv_cache = lambda *_, **__: setattr(pipeline, "kv_cache1", _kv_caches(3, FRAMES if window < 0 else window))
    pipeline._initialize_crossattn_cache = lambda *_, **__: setattr(pipeline, "crossattn_cache", _cross_caches(3, (HEADS, DIM // HEADS)))

    noise, drawn = torch.randn(1, FRAMES, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6)), Drawn()
    torch.randn_like = drawn
    pipeline.vae.decode_to_pixel = pipeline.vae.decode_to_pixel_chunk = lambda latents, **_: latents
    _, latents = pipeline.inference(noise.clone(), ["-"], return_latents=True)
    return _ours_against(key, ours_as, card, theirs, latents, noise, drawn, Given(TextContext(text)))


def compare_livetalk(key: str, checkout: Path, ours_as: str) -> float:
    """LiveTalk's script: frame 0 pinned, sound into the layers, 15 frames of which 9 stay."""
    card, layers, width = _row_card(key), 6, 14 * 768
    settings = card.rollout
    importlib.import_module("diffusers.models.modeling_utils")  # before what it looks for is replaced
    _open(checkout, packages=("model", "utils", "scripts"))
    _stub("xfuser", "xfuser.core", "xfuser.core.distributed", "utils.io_utils", "utils.wan_wrapper", "scripts.inference", "librosa")
    _stub("OmniAvatar", "OmniAvatar.models", "OmniAvatar.utils", "OmniAvatar.utils.args_config", "OmniAvatar.schedulers", "torchvision")
    _stub("torchvision.transforms")
    sys.modules["OmniAvatar.schedulers.flow_match"] = _file("flow_match", checkout / "utils" / "Omniavatarpatch" / "flow_match.py")
    causal = importlib.import_module("model.causal_wan_video_dit_omniavatar")
    theirs = causal.CausalWanModel(
        in_dim=33, num_layers=layers, eps=1e-6, has_image_input=False, use_audio=True, local_attn_size=15, sink_size=9, **SMALL
    ).eval()
    _fill(theirs)
    for part in theirs.modules():
        if hasattr(part, "max_attention_size"):
            part.max_attention_size = 15 * TOKENS

    script = importlib.import_module("scripts.inference_example")
    pipeline = script.CausalInferencePipeline.__new__(script.CausalInferencePipeline)
    nn.Module.__init__(pipeline)
    pipeline.generator, pipeline.num_transformer_blocks, pipeline.frame_seq_length = theirs, layers, TOKENS
    pipeline.num_frame_per_block, pipeline.independent_first_frame, pipeline.local_attn_size = settings.chunk, False, 15
    pipeline.scheduler = script.FlowMatchScheduler(shift=5, sigma_min=0.0, extra_one_step=True, num_inference_steps=4)
    # As its __init__ does, which runs in bf16; the sines of t, which it would round too, stay in the float32 of everything else here.
    pipeline.denoising_step_list = pipeline.scheduler.timesteps.to(torch.bfloat16).float()
    pipeline.kv_cache1 = _kv_caches(layers, 15, flat=True)
    pipeline.crossattn_cache = _cross_caches(layers, (DIM,))
    draw = torch.Generator().manual_seed(5)
    text, heard = torch.randn(1, WORDS, TEXT, generator=draw), torch.randn(1, 4 * FRAMES - 3, width, generator=draw)
    portrait = torch.randn(1, 16, 1, HEIGHT, WIDTH, generator=draw)
    pipeline._encode_text_prompts = lambda *_, **__: {"prompt_embeds": text}
    pipeline.vae = types.SimpleNamespace(decode_to_pixel=lambda latents: latents)
    mask = torch.ones(1, 1, FRAMES, HEIGHT, WIDTH)
    mask[:, :, 0] = 0
    frame = torch.cat((portrait.expand(-1, -1, FRAMES, -1, -1), mask), dim=1)
    steps = torch.cat((heard[:, :1].expand(-1, 3, -1), heard), dim=1)  # frame 0 hears its only step four times
    code = theirs.audio_proj(rearrange(steps, "b s c -> b c s 1 1"))
    code = torch.cat([projection(code) for projection in theirs.audio_cond_projs])

    noise, drawn = torch.randn(1, FRAMES, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6)), Drawn()
    torch.randn_like = drawn
    _, latents = pipeline.inference(noise.clone(), "-", frame, code, return_latents=True)
    return _ours_against(key, ours_as, card, theirs, latents, noise, drawn, Given(TextContext(text), heard), portrait)


def _ours_against(key, ours_as, card, theirs, latents, noise, drawn, given, portrait=None) -> float:
    """Ours, from a file of their weights, against their latents [b, f, c, h, w]."""
    settings, later, draws = card.rollout, {}, iter(drawn.draws)
    for index, first in enumerate(range(0, FRAMES, settings.chunk)):
        for step in range(1, len(settings.steps(index))):
            later[first, step] = rearrange(next(draws), "(b f) c h w -> b c f h w", b=1)
    assert next(draws, None) is None
    weights = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items() if not name.startswith("freqs")}
    with tempfile.TemporaryDirectory() as folder:
        path = containers.WHOLE[CONTAINERS[key]](weights, Path(folder))
        ours = load_generator(path, known_as=ours_as, accept_licence=True, dtype=torch.float32)
    settings = ours.card.rollout
    noise = rearrange(noise, "b f c h w -> b c f h w")
    anchor = Anchor(torch.zeros_like(noise[:, :, :1]) if portrait is None else portrait)
    return relative_error(
        take(rollout(ours, anchor, given, settings, Tape(noise, later)), FRAMES), rearrange(latents, "b f c h w -> b c f h w")
    )


def _row_card(key: str):
    from kf_core.checkpoints.detect import row_of

    return row_of(key).card()


def _attention(q: Tensor, k: Tensor, v: Tensor, **_) -> Tensor:
    """What flash attention computes: [b, t, n, d]."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _kv_caches(layers: int, frames: int, flat: bool = False) -> list[dict]:
    shape = (1, frames * TOKENS, DIM) if flat else (1, frames * TOKENS, HEADS, DIM // HEADS)

    def zero():
        return torch.tensor([0], dtype=torch.long)

    return [
        {"k": torch.zeros(shape), "v": torch.zeros(shape), "global_end_index": zero(), "local_end_index": zero()} for _ in range(layers)
    ]


def _cross_caches(layers: int, width: tuple[int, ...]) -> list[dict]:
    return [{"k": torch.zeros(1, WORDS, *width), "v": torch.zeros(1, WORDS, *width), "is_init": False} for _ in range(layers)]


def _fill(model: nn.Module) -> None:
    draw = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        matrix = parameter.dim() > 1 and parameter.shape[0] > 1
        scale = (1 / parameter[0].numel()) ** 0.5 if matrix else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=draw) * scale + (0 if matrix else 0.5))


def _open(checkout: Path, packages: tuple[str, ...]) -> None:
    """Make their packages importable, without running their `__init__` files, which import everything."""
    sys.path.insert(0, str(checkout))
    for name in packages:
        package = types.ModuleType(name)
        package.__path__ = [str(checkout.joinpath(*name.split(".")))]
        sys.modules[name] = package
    torch.cuda.current_device = lambda: 0  # asked for at import, never used


def _stub(*names: str) -> None:
    """Modules that are imported and not used here."""
    for name in names:
        sys.modules[name] = MagicMock(name=name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)


def _file(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTAINERS = {
    "causal-forcing": "causal_forcing",
    "causal-forcing-framewise": "framewise",
    "causal-forcing-2step": "framewise",
    "causal-forcing-1step": "framewise",
    "longlive": "causal_forcing",
    "longlive-infinity": "causal_forcing",
    "livetalk": "flat",
}
COMPARED = {key: compare_livetalk if key == "livetalk" else compare_student for key in CONTAINERS}

if __name__ == "__main__":
    main()
