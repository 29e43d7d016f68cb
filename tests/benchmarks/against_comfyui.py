"""Seconds per chunk as a stream goes on: ours against ComfyUI's own autoregressive sampler, same weights, sizes and steps, one run.

    python tests/benchmarks/against_comfyui.py --host <folder of ComfyUI> [--frames 304] [--at 30 300] [--ours-at 3000]

ComfyUI's sampler keeps every frame of the clip; ours keeps a window and an anchor. Ours is measured twice: at its own window, and with
an unlimited window and no anchor or knot, which is the same work as theirs. Random weights: speed does not depend on what they are.
Runs in an environment that has ComfyUI's requirements.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from kf_core.chunks import ChunkConditioning, LatentChunk, TextContext
from kf_core.conditioning.anchor import Anchor
from kf_core.evaluation.speed import machine
from kf_core.model.card import ModelCard, TextSpec
from kf_core.model.causal import Generator
from kf_core.model.wan import WanModel
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.schedule import warped
from kf_core.settings import Ahead, RolloutSettings

CHUNK = 3
KNOT_FORCING = RolloutSettings(schedule=warped(), knot="blend", anchor=Ahead(20, 20))
SELF_FORCING = RolloutSettings(schedule=warped(), knot=None, fuse=False, anchor=None, window=6)


class Still:
    """A prompt and nothing else."""

    text = TextContext(torch.zeros(1, 512, 64))

    def window(self, span):
        return ChunkConditioning(span=span, text=self.text)


def our_times(modules: WanModel, card: ModelCard, settings: RolloutSettings, size: tuple[int, int], frames: int) -> dict[int, float]:
    """The frame at which each chunk ends -> seconds it took."""
    model = Generator(replace(card, rollout=settings), modules)
    noise, times = SeededNoise(0, (1, 16, *size)), {}
    before = perf_counter()
    for out in rollout(model, Anchor(torch.zeros(1, 16, 1, *size)), Still(), settings, noise):
        if isinstance(out, LatentChunk):
            now = perf_counter()
            times[out.span.stop] = now - before
            before = now
            if out.span.stop >= frames:
                return times


def their_times(modules: WanModel, card: ModelCard, host: Path, size: tuple[int, int], frames: int) -> dict[int, float]:
    """The same for ComfyUI's `ar_video` sampler, run with its own model class and its own sampling loop."""
    sys.path.insert(0, str(host))
    arguments, sys.argv = sys.argv, ["benchmark", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.ops
    from comfy.k_diffusion.sampling import sample_ar_video
    from comfy.ldm.wan.ar_model import CausalWanModel

    sys.argv = arguments
    theirs = CausalWanModel(
        model_type="t2v", in_dim=16, dim=card.dim, ffn_dim=card.ffn_dim, freq_dim=card.freq_dim, text_dim=card.text.width, out_dim=16,
        num_heads=card.heads, num_layers=card.layers, operations=comfy.ops.disable_weight_init, device="cpu", dtype=torch.float32,
    )  # fmt: skip
    theirs.load_state_dict(modules.state_dict(), strict=True)
    ends: list[float] = []

    class Inner:
        """What the sampler asks of ComfyUI's model wrapper; x0 = x - sigma * flow, t = 1000 * sigma, as its model sampling does."""

        diffusion_model = theirs

        def get_dtype(self):
            return torch.float32

    class Denoiser:
        def __init__(self):
            self.inner_model = type("Guider", (), {"inner_model": Inner()})()

        def __call__(self, x, sigma, model_options, seed=None):
            options = model_options["transformer_options"]
            flow = theirs(x, sigma * 1000, Still.text.embedding, transformer_options=options)
            if float(sigma[0]) == 0:
                ends.append(perf_counter())
            return x - sigma.view(-1, 1, 1, 1, 1) * flow

    sigmas = torch.tensor([s for s, _ in warped()] + [0.0])
    x = SeededNoise(0, (1, 16, *size))(range(frames), 0)
    start = perf_counter()
    options = {"seed": 0, "model_options": {"transformer_options": {}}}
    sample_ar_video(Denoiser(), x, sigmas, options, disable=True, num_frame_per_block=CHUNK)
    return {CHUNK * (i + 1): end - begin for i, (begin, end) in enumerate(zip([start, *ends], ends, strict=False))}


def around(times: dict[int, float], frame: int) -> float:
    """The median of the five chunks nearest to a frame."""
    return median(times[f] for f in sorted(times, key=lambda f: abs(f - frame))[:5])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, default=Path.home() / "comfy" / "ComfyUI")
    parser.add_argument("--frames", type=int, default=306, help="latent frames for all three")
    parser.add_argument("--at", type=int, nargs="+", default=[30, 300], help="latent frames at which to compare")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=[16, 16], help="latent height and width; 16 16 are 64 tokens a frame")
    parser.add_argument("--ours-at", type=int, default=0, help="also run ours to this latent frame")
    options = parser.parse_args()

    card = ModelCard(
        name="benchmark", dim=options.dim, ffn_dim=4 * options.dim, layers=options.layers, heads=options.dim // 128, in_channels=16,
        text=TextSpec(kind="umt5", width=64), rollout=KNOT_FORCING,
    )  # fmt: skip
    torch.manual_seed(0)
    modules, size = WanModel(card).eval(), tuple(options.size)
    print(f"{machine()}\ndim {card.dim}, {card.layers} layers, {size[0] * size[1] // 4} tokens a frame, float32, 4 steps + clean pass")
    whole = replace(SELF_FORCING, window=None, max_frames=options.frames)
    runs = {
        "ComfyUI ar_video, every frame remembered": their_times(modules, card, options.host, size, options.frames),
        "ours, every frame remembered (same work)": our_times(modules, card, whole, size, options.frames),
        "ours, window 6 without anchor or knot": our_times(modules, card, SELF_FORCING, size, options.frames),
        "ours, Knot Forcing: window 6, anchor, knot": our_times(modules, card, KNOT_FORCING, size, max(options.frames, options.ours_at)),
    }
    reference = runs["ComfyUI ar_video, every frame remembered"]
    moments = options.at + ([options.ours_at] if options.ours_at else [])
    print("| seconds per chunk of 3 | " + " | ".join(f"frame {m}" for m in moments) + " |\n|---" * 1 + "|---" * len(moments) + "|")
    for name, times in runs.items():
        cells = []
        for moment in moments:
            if moment > max(times) + 15:
                cells.append("-")
                continue
            ratio = f" ({around(reference, moment) / around(times, moment):.2f} x)" if moment <= max(reference) else ""
            cells.append(f"{around(times, moment):.3f}{ratio}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
