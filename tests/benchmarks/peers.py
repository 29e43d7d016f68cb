"""The peers of the benchmark, each run by its own authors' loop, and ours: seconds per chunk from any latent frame on.

A peer's model and sampling loop are imported from its folder, never copied. What is substituted stands at the border: Self-Forcing's
FlashAttention by PyTorch's own attention (there is none on a CPU), its text encoder and VAE by nothing (they are not measured), its
hard-coded 1.3B sizes by those of the run. To begin at a late frame, a peer's cache is filled with random numbers: time does not
depend on what they are.
"""

import contextlib
import importlib
import io
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from kf_core.conditioning.anchor import Anchor
from kf_core.models.card import ModelCard
from kf_core.models.causal import Generator
from kf_core.models.wan import WanModel
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.sampling.state import RolloutState
from kf_core.schedule import warped
from kf_core.settings import RolloutSettings
from kf_core.types import ChunkConditioning, LatentChunk, TextContext

CHUNK, STEPS, WORDS, WIDTH = 3, 4, 512, 64  # WIDTH: of the prompt's words, where nothing else is said


@dataclass(frozen=True)
class Setting:
    """What all share: weights, size, noise, clock; and where they compute, in which numbers."""

    card: ModelCard
    modules: WanModel
    size: tuple[int, int]  # latent height and width
    clock: Callable[[], float]
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    def zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, device=self.device, dtype=self.dtype)

    @property
    def tokens(self) -> int:
        return self.size[0] * self.size[1] // 4

    @property
    def context(self) -> Tensor:
        return self.zeros(1, WORDS, self.card.text.width)

    def first_noise(self, start: int, chunks: int) -> Tensor:
        return SeededNoise(0, (1, 16, *self.size))(range(start, start + CHUNK * chunks), 0)

    def fresh_noise(self, block: int, step: int) -> Tensor:
        """What enters after denoising step `step` of the run's block: as ComfyUI's sampler draws it for seed 0."""
        torch.manual_seed(block * 1000 + step)
        return torch.randn(1, 16, CHUNK, *self.size)

    def remembered(self, frames: int) -> Tensor:
        """Random keys or values of some frames, for every layer: [layer, t, n, d]."""
        heads = self.card.heads, self.card.dim // self.card.heads
        generator = torch.Generator(self.device).manual_seed(1)
        shape = self.card.layers, frames * self.tokens, *heads
        return torch.randn(*shape, generator=generator, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class Run:
    seconds: list[float]  # of each chunk
    latents: Tensor  # [1, 16, f, h, w]


def ours(setting: Setting, settings: RolloutSettings, start: int, chunks: int, *, hot: bool, attention: Callable | None = None) -> Run:
    """Our rollout, by the optimized forward or the plain forward."""
    drawn = list(itertools.islice(our_chunks(setting, settings, start, chunks, hot=hot, attention=attention), chunks))
    return Run([seconds for seconds, _ in drawn], torch.cat([latents for _, latents in drawn], dim=2))


def our_chunks(
    setting: Setting, settings: RolloutSettings, start: int, chunks: int, *, hot: bool, attention: Callable | None = None
) -> Iterator[tuple[float, Tensor]]:
    """Our rollout chunk by chunk: the seconds that each took, its latents. Draws only when it is asked."""
    from kf_core.models.optimized_forward import OptimizedGenerator

    words = dict(dtype=setting.dtype, device=setting.device) | ({} if attention is None else dict(attention=attention))
    model = (OptimizedGenerator if hot else Generator)(replace(setting.card, rollout=settings), setting.modules, **words)
    frame = torch.zeros(1, 16, 1, *setting.size, device=setting.device)
    anchor = Anchor(frame)
    state = RolloutState.start(model, anchor, settings)
    first = settings.chunk_of(start)
    if start:
        used = (settings.anchor is not None) + min(start, settings.past)
        past = setting.remembered(used).permute(0, 2, 1, 3)[:, None]
        state.cache.restore({"keys": past, "values": past, "next_frame": torch.tensor(start)})
        state.chunk, state.knot = first, frame.clone() if settings.knot else None
    context = TextContext(setting.context)

    class Still:
        """A prompt and nothing else."""

        def window(self, span):
            return ChunkConditioning(span=span, text=context)

    if settings.knot is None:
        whole = setting.first_noise(start, chunks)

        def noise(span, step):
            block = (span.start - start) // CHUNK
            return whole[:, :, CHUNK * block : CHUNK * (block + 1)] if step == 0 else setting.fresh_noise(block, step - 1)
    else:
        noise = SeededNoise(0, (1, 16, *setting.size))
    before = setting.clock()
    for item in rollout(model, anchor, Still(), settings, noise, state):
        if isinstance(item, LatentChunk):
            yield setting.clock() - before, item.latents
            before = setting.clock()


class ComfyUI:
    """Its class `CausalWanModel` under its sampler `ar_video`."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        arguments, sys.argv = sys.argv, ["benchmark", "--cpu"]
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.ops
        from comfy.k_diffusion.sampling import sample_ar_video
        from comfy.ldm.wan.ar_model import CausalWanModel

        sys.argv = arguments
        card = setting.card
        self.setting, self.sample = setting, sample_ar_video
        self.model = CausalWanModel(
            model_type="t2v", in_dim=16, dim=card.dim, ffn_dim=card.ffn_dim, freq_dim=card.freq_dim, text_dim=card.text.width, out_dim=16,
            num_heads=card.heads, num_layers=card.layers, operations=comfy.ops.disable_weight_init, device="cpu", dtype=torch.float32,
        ).eval()  # fmt: skip
        self.model.load_state_dict(setting.modules.state_dict(), strict=True)

    def __call__(self, start: int, chunks: int) -> Run:
        setting, model, ends = self.setting, self.model, []

        class Wrapped:
            """What the sampler asks of ComfyUI's model wrapper; x0 = x - sigma * flow, t = 1000 * sigma, as its model sampling does."""

            diffusion_model = model

            def get_dtype(self):
                return torch.float32

            def process_latent_in(self, latent):
                return latent

        class Denoiser:
            def __init__(self):
                self.inner_model = type("Guider", (), {"inner_model": Wrapped()})()

            def __call__(self, x, sigma, model_options, seed=None):
                options = model_options["transformer_options"]
                if start and not ends:  # the given past: random instead of passed through the network
                    for cache, past in zip(options["ar_state"]["kv_caches"], setting.remembered(start), strict=True):
                        cache["k"][0, : len(past)] = past
                        cache["v"][0, : len(past)] = past
                        cache["end"] = len(past)
                    ends.append(setting.clock())
                    return x
                flow = model(x, sigma * 1000, setting.context, transformer_options=options)
                if float(sigma[0]) == 0:
                    ends.append(setting.clock())
                return x - sigma.view(-1, 1, 1, 1, 1) * flow

        options = {"transformer_options": {}}
        if start:
            options["transformer_options"]["ar_config"] = {"initial_latent": torch.zeros(1, 16, start, *setting.size)}
        sigmas = torch.tensor([sigma for sigma, _ in warped()] + [0.0])
        x = torch.cat((torch.zeros(1, 16, start, *setting.size), setting.first_noise(start, chunks)), dim=2)
        if not start:
            ends.append(setting.clock())
        out = self.sample(Denoiser(), x, sigmas, {"seed": 0, "model_options": options}, disable=True, num_frame_per_block=CHUNK)
        return Run([end - begin for begin, end in zip(ends, ends[1:], strict=False)], out[:, :, start:])


class SelfForcing:
    """The authors' `CausalWanModel` and `CausalInferencePipeline`; `window` frames attended, None: all."""

    def __init__(self, setting: Setting, folder: Path, window: int | None) -> None:
        with _at_the_border(folder):
            causal = importlib.import_module("wan.modules.causal_model")
            wrapper = importlib.import_module("utils.wan_wrapper")
            pipeline = importlib.import_module("pipeline.causal_inference")
        card, self.setting, self.window = setting.card, setting, window
        with setting.device:
            model = causal.CausalWanModel(
                model_type="t2v", in_dim=16, dim=card.dim, ffn_dim=card.ffn_dim, freq_dim=card.freq_dim, text_dim=card.text.width,
                out_dim=16, num_heads=card.heads, num_layers=card.layers, cross_attn_norm=True, local_attn_size=window or -1,
            ).eval()  # fmt: skip
        if setting.dtype != torch.float32:
            model.to(setting.dtype)
        model.load_state_dict(setting.modules.state_dict(), strict=True)
        if window is not None:
            for block in model.blocks:
                block.self_attn.max_attention_size = window * setting.tokens  # they write 1560 tokens a frame
        wrapper.CausalWanModel.from_pretrained = lambda *args, **words: model
        self.generator = wrapper.WanDiffusionWrapper(is_causal=True, timestep_shift=5.0)
        self.generator.post_init()
        arguments = types.SimpleNamespace(
            denoising_step_list=[1000, 750, 500, 250], warp_denoising_step=True, num_frame_per_block=CHUNK, independent_first_frame=False,
            context_noise=0,
        )  # fmt: skip

        def reader(text_prompts):
            return {"prompt_embeds": setting.context}

        with contextlib.redirect_stdout(io.StringIO()):
            self.pipeline = pipeline.CausalInferencePipeline(arguments, setting.device, self.generator, _Called(reader), _Called(None))
        self.pipeline.vae.decode_to_pixel = lambda latents, use_cache: torch.zeros(1)
        self.pipeline.num_transformer_blocks, self.pipeline.frame_seq_length = card.layers, setting.tokens
        self.model, self.plain_noise = model, self.generator.scheduler.add_noise

    def __call__(self, start: int, chunks: int) -> Run:
        setting, pipeline, ends, drawn = self.setting, self.pipeline, [], []
        card, kept = setting.card, self.window or start + CHUNK * chunks
        heads = card.heads, card.dim // card.heads
        past = setting.remembered(min(start, kept))

        def cache(layer: int) -> dict:
            room = {name: setting.zeros(1, kept * setting.tokens, *heads) for name in ("k", "v")}
            return room | {name: torch.tensor([0], device=setting.device) for name in ("global_end_index", "local_end_index")}

        pipeline.kv_cache1 = [cache(layer) for layer in range(card.layers)]

        def words():
            return {name: setting.zeros(1, WORDS, *heads) for name in ("k", "v")} | {"is_init": False}

        pipeline.crossattn_cache = [words() for _ in range(card.layers)]

        def noised(clean, noise, timestep):
            drawn.append(None)
            block, step = divmod(len(drawn) - 1, STEPS - 1)
            return self.plain_noise(clean, setting.fresh_noise(block, step)[0].transpose(0, 1).to(clean), timestep)

        def called(**words):
            if words["current_start"] < start * setting.tokens:  # the given past: random instead of passed through the network
                for layer, each in enumerate(words["kv_cache"]):
                    each["k"][0, : past.shape[1]] = each["v"][0, : past.shape[1]] = past[layer]
                    each["global_end_index"].fill_(start * setting.tokens)
                    each["local_end_index"].fill_(past.shape[1])
                ends[:] = [setting.clock()]
                return None
            found = self.generator(**words)
            passes.append(None)
            if len(passes) % (STEPS + 1) == 0:
                ends.append(setting.clock())
            return found

        passes: list[None] = []
        self.generator.scheduler.add_noise = noised
        pipeline.generator = _Called(called)
        noise = setting.first_noise(start, chunks).transpose(1, 2).to(setting.device, setting.dtype)
        given = setting.zeros(1, start, 16, *setting.size) if start else None
        ends.append(setting.clock())
        with contextlib.redirect_stdout(io.StringIO()):
            _, latents = pipeline.inference(noise, ["-"], given, return_latents=True)
        return Run([end - begin for begin, end in zip(ends, ends[1:], strict=False)], latents.transpose(1, 2)[:, :, start:])


class _Called(nn.Module):
    """A function where a module is expected."""

    def __init__(self, function: Callable | None) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args, **words):
        return self.function(*args, **words)


@contextlib.contextmanager
def _at_the_border(folder: Path) -> Iterator[None]:
    """Self-Forcing's own files, without those that need a card or another model: flash attention, tokenizer, text encoder, VAE."""

    def attend(q, k, v, k_lens=None, **words):
        return scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    absent = {
        "wan.modules.attention": dict(attention=attend, flash_attention=attend),
        "wan.modules.tokenizers": dict(HuggingfaceTokenizer=None),
        "wan.modules.vae": dict(_video_vae=None),
        "wan.modules.t5": dict(umt5_xxl=None),
        "demo_utils.memory": dict.fromkeys(
            ("gpu", "get_cuda_free_memory_gb", "DynamicSwapInstaller", "move_model_to_device_with_memory_preservation")
        ),
    }
    made = {}
    for package in ("wan", "wan.modules", "utils", "pipeline", "demo_utils"):
        made[package] = types.ModuleType(package)
        made[package].__path__ = [str(folder / package.replace(".", "/"))]
    for name, contents in absent.items():
        made[name] = types.ModuleType(name)
        made[name].__dict__.update(contents)
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("wan", "utils", "pipeline", "demo_utils")}
    for name in before:
        del sys.modules[name]
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("wan", "utils", "pipeline", "demo_utils")]:
            del sys.modules[name]
        sys.modules.update(before)
