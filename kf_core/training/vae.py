"""Trains kf-tiny's autoencoder on procedural portraits: pictures first, then short clips, then long ones, at last the decoder alone.

The schedule is counted in minutes of the budget, so the same recipe fits an hour of one CPU thread or a few minutes of a GPU.
When the encoder freezes, `kf-tiny-vae.safetensors` is written and the latents never change again: a generator can be trained
on them while the decoder goes on getting better. A run that was killed goes on where its last checkpoint stood.

    python -m kf_core.training.vae --run runs/v0 --size 96 --minutes 50
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..checkpoints.load import fast_dtype
from ..timeline import PIXELS_PER_LATENT
from ..vae.streaming import DecoderState, EncoderState, decode_latents, encode_clip, encode_pictures, prepare
from ..vae.wan import LATENT_MEAN, LATENT_STD, SPATIAL_STRIDE, Z_DIM, CausalConv3d, Downsample, ResidualBlock, Upsample, WanVAE
from .drawing import render
from .muon import Muon, parameter_groups
from .portraits import Split, sample_identities, sample_motion

DIM = 16
FILE = "kf-tiny-vae.safetensors"
CHECKPOINT = "vae-checkpoint.pt"
HELD_OUT_SEED = 1_000_003

EDGE_WEIGHT = 1.0
KL_WEIGHT = 3e-4
COLOUR_WEIGHT = 1.0
RHYTHM_WEIGHT = 1.0
RHYTHM, RHYTHM_GAIN = PIXELS_PER_LATENT - 1, 4.0  # numbers that say how brightness goes within a latent's pictures
FEATURE_WEIGHT = 2.0  # added in mouth and eye boxes, so they count three times; in the stage `mouths` more
ADAM_SHARE = 0.1  # AdamW's rate as a share of Muon's
# Nothing else holds the size of the residual stream, since every block normalises what it reads: without decay it grew to 14,000
# at the encoder's end, and what the blocks add to it was lost in rounding.
WEIGHT_DECAY = 0.1
EMA_DECAY = 0.995
SECONDS_BETWEEN_CHECKPOINTS = 120
STATISTICS_CLIPS = 64  # from which the latents' mean and deviation are taken
MEASURED_CLIPS = 16


@dataclass(frozen=True)
class Stage:
    """A part of the budget. The learning rate runs evenly from `rate[0]` to `rate[1]` of the base rate."""

    name: str
    until: float  # share of the budget at which it ends
    frames: tuple[int, ...]  # pictures per clip; one is drawn for each step
    pictures: int  # pictures per step, about
    rate: tuple[float, float]
    crop: float = 1.0  # side of a random cut, as a share of the picture: more faces for the same work
    mouths: bool = False  # cut around the mouths
    features: float = FEATURE_WEIGHT
    decoder_only: bool = False


STAGES = (
    Stage("pictures", 0.15, (1,), 24, (1.0, 0.9), crop=2 / 3),
    Stage("short clips", 0.35, (5, 9), 36, (0.9, 0.7), crop=2 / 3),
    Stage("mouths", 0.62, (5, 9), 64, (0.7, 0.6), crop=1 / 2, mouths=True, features=5.0),
    Stage("long clips", 0.74, (9, 17, 33), 27, (0.6, 0.1)),
    Stage("decoder", 1.0, (9, 17, 33), 27, (0.6, 0.0), decoder_only=True),
)


@dataclass(frozen=True, eq=False)
class Clips:
    """Drawn pictures and where the features are that a portrait lives by."""

    pictures: Tensor  # [b, 3, f, h, w] RGB 0..1
    mouth: Tensor  # [b, 1, f, h, w] 1 inside the mouth's box
    eyes: Tensor  # [b, 1, f, h, w]

    def to(self, device: str) -> "Clips":
        return Clips(self.pictures.to(device), self.mouth.to(device), self.eyes.to(device))


def draw(clips: int, frames: int, size: int, generator: torch.Generator, split: Split = "train") -> Clips:
    """Fresh portraits, babbling, with heads from still to lively."""
    motion = sample_motion(clips, frames, generator, strength=None)
    drawn = render(sample_identities(clips, generator, split), motion, size)
    mouth = _inside(drawn.mouth_box[:, :, None], size)
    eyes = _inside(drawn.eye_boxes, size)
    return Clips(rearrange(drawn.pictures, "b f c h w -> b c f h w"), mouth, eyes)


def cut(clips: Clips, share: float, generator: torch.Generator, mouths: bool = False) -> Clips:
    """The same random square of every clip, a multiple of 8 pixels wide; `mouths`: somewhere around where their mouths are."""
    size = clips.pictures.shape[-1]
    side = min(size, round(size * share / SPATIAL_STRIDE) * SPATIAL_STRIDE)
    top, left = (int(torch.randint(size - side + 1, (), generator=generator)) for _ in range(2))
    if mouths:
        density = clips.mouth.mean((0, 1, 2))  # [h, w]
        centre = [(density.sum(1 - axis) @ torch.arange(size).float() / density.sum()).item() for axis in (0, 1)]
        shift = torch.randint(-side // 4, side // 4 + 1, (2,), generator=generator).tolist()
        top, left = (min(max(0, round(c) + s - side // 2), size - side) for c, s in zip(centre, shift, strict=True))
    window = (..., slice(top, top + side), slice(left, left + side))
    return Clips(clips.pictures[window].contiguous(memory_format=torch.channels_last_3d), clips.mouth[window], clips.eyes[window])


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Boxes [b, f, k, 4] of left, top, right, bottom in pixels -> 1 inside any of them: [b, 1, f, h, w]."""
    centres = torch.arange(size) + 0.5
    left, top, right, bottom = boxes[..., None].unbind(-2)
    across = (centres > left) & (centres < right)
    down = (centres > top) & (centres < bottom)
    return (down[..., :, None] & across[..., None, :]).any(2).float()[:, None]


class VAETraining:
    """Everything a training run changes: weights, their running mean, optimisers, the generator of its data, the clock."""

    def __init__(self, *, size: int, device: str = "cpu", seed: int = 0, dim: int = DIM, rate: float = 0.03):
        torch.manual_seed(seed)
        self.size, self.device, self.rate, self.dim = size, device, rate, dim
        self.vae = prepare(initialise(WanVAE(dim)), torch.float32, device)
        self.mean_vae = prepare(WanVAE(dim), torch.float32, device).requires_grad_(False)
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.reader = fixed_reader().to(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.seconds = 0.0  # spent training
        self.is_frozen = False
        self._make_optimisers()

    def _make_optimisers(self) -> None:
        parts = [self.vae.conv2, self.vae.decoder] + ([] if self.is_frozen else [self.vae.encoder, self.vae.conv1])
        weights, rest = parameter_groups(parts)
        self.optimisers = [
            Muon(weights, lr=self.rate, weight_decay=WEIGHT_DECAY),
            torch.optim.AdamW(rest, lr=self.rate * ADAM_SHARE, weight_decay=0.0),
        ]
        self.first_step = self.step  # of these optimisers; they warm up

    def train_step(
        self, frames: int, clips: int, rate: float, crop: float = 1.0, mouths: bool = False, features: float = FEATURE_WEIGHT
    ) -> dict[str, float]:
        """One step on freshly drawn clips at `rate` times the base rate; returns what the progress bar shows."""
        batch = cut(draw(clips, frames, self.size, self.generator), crop, self.generator, mouths).to(self.device)
        warm = min(1.0, (self.step - self.first_step + 1) / 30)
        for optimiser, base in zip(self.optimisers, (self.rate, self.rate * ADAM_SHARE), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * rate * warm
            optimiser.zero_grad(set_to_none=True)
        with mixed_precision(self.device):
            with torch.set_grad_enabled(not self.is_frozen):
                mean, log_variance = self.vae.encode(batch.pictures * 2 - 1, {})
            mean, log_variance = mean.float(), log_variance.float().clamp(-20, 10)
            noise = torch.randn(mean.shape, generator=self.generator).to(mean)
            raw = mean + noise * (log_variance / 2).exp()
            made = self.vae.decode(raw, {})
        made = made.float() / 2 + 0.5
        loss = reconstruction_loss(made, batch, features)
        if not self.is_frozen:
            loss = loss + KL_WEIGHT * 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            colour, rhythm = reading_losses(self.reader(mean), batch.pictures)
            loss = loss + COLOUR_WEIGHT * colour + RHYTHM_WEIGHT * rhythm
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self._update_mean()
        error = (made.detach().clamp(0, 1) - batch.pictures).square()
        return {"loss": loss.item(), "psnr": psnr(error), "mouth": psnr(error, batch.mouth)}

    @torch.no_grad()
    def _update_mean(self) -> None:
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.mean_vae.parameters()), list(self.vae.parameters()), 1 - decay)

    def freeze_encoder(self) -> None:
        """From here on the latents are fixed: running means become the weights, the statistics are folded in, rounded as in the file."""
        self.vae.load_state_dict(self.mean_vae.state_dict())
        fold_statistics(self.vae, *measure_statistics(self.vae, self.size, self.device))
        for part in (self.vae.encoder, self.vae.conv1):
            for parameter in part.requires_grad_(False).parameters():
                parameter.data = parameter.data.half().float()
        self.mean_vae.load_state_dict(self.vae.state_dict())
        self.is_frozen = True
        self._make_optimisers()

    def save(self, path: Path) -> None:
        """Writes a checkpoint that is whole or not there at all."""
        state = {name: getattr(self, name) for name in ("step", "first_step", "seconds", "is_frozen", "size", "dim")}
        state |= {name: getattr(self, name).state_dict() for name in ("vae", "mean_vae", "reader")}
        state |= {"optimisers": [o.state_dict() for o in self.optimisers], "generator": self.generator.get_state()}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load(self, path: Path) -> None:
        """Goes on exactly where `save` was called."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("size", "dim"):
            if state[name] != getattr(self, name):
                raise ValueError(f"{path} was trained with {name} {state[name]}, asked for {getattr(self, name)}")
        for name in ("vae", "mean_vae", "reader"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds, self.is_frozen = state["step"], state["seconds"], state["is_frozen"]
        if self.is_frozen:
            self.vae.encoder.requires_grad_(False)
            self.vae.conv1.requires_grad_(False)
        self._make_optimisers()
        self.first_step = state["first_step"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"].cpu())


def train_vae(run_dir: Path, *, size: int, minutes: float, device: str = "cpu", threads: int = 1, seed: int = 0, dim: int = DIM) -> Path:
    """Trains for `minutes` (counting what an earlier, interrupted run spent) and returns the autoencoder's file."""
    torch.set_num_threads(threads)
    checkpoint, file = run_dir / CHECKPOINT, run_dir / FILE
    training = VAETraining(size=size, device=device, seed=seed, dim=dim)
    if checkpoint.exists():
        training.load(checkpoint)
    budget = minutes * 60
    last_save = training.seconds
    bar = tqdm(total=round(budget), initial=round(training.seconds), unit="s", desc="VAE", mininterval=10)
    while training.seconds < budget:
        share = training.seconds / budget
        if training.is_frozen:  # by a smaller budget: what is frozen stays frozen
            share = max(share, STAGES[-2].until)
        stage = current_stage(share)
        started = time.monotonic()
        if stage.decoder_only and not training.is_frozen:
            training.freeze_encoder()
            training.save(checkpoint)
            export(training, file)
        frames = stage.frames[int(torch.randint(len(stage.frames), (), generator=training.generator))]
        clips = max(1, round(stage.pictures / frames))
        shown = training.train_step(frames, clips, learning_rate(share), stage.crop, stage.mouths, stage.features)
        spent = time.monotonic() - started
        training.seconds += spent
        bar.set_postfix({k: f"{v:.3g}" for k, v in shown.items()} | {"pictures/s": f"{frames * clips / spent:.1f}", "step": training.step},
                        refresh=False)  # fmt: skip
        bar.set_description(f"VAE, {stage.name}", refresh=False)
        bar.update(round(training.seconds) - bar.n)
        if training.seconds - last_save > SECONDS_BETWEEN_CHECKPOINTS:
            training.save(checkpoint)
            last_save = training.seconds
    bar.close()
    if not training.is_frozen:
        training.freeze_encoder()
    training.save(checkpoint)
    return finish(training, file)


def mixed_precision(device: torch.device | str) -> torch.autocast:
    """bfloat16 products where the device has them in hardware (1.5 to 2 times as fast), else none."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=fast_dtype(device) != torch.float32)


def current_stage(share: float) -> Stage:
    """The stage at this share of the budget."""
    return next((stage for stage in STAGES if share < stage.until), STAGES[-1])


def learning_rate(share: float) -> float:
    """The learning rate at this share of the budget, as a share of the base rate."""
    stage = current_stage(share)
    start = max((s.until for s in STAGES if s.until < stage.until), default=0.0)
    passed = min(1.0, (share - start) / (stage.until - start))
    return stage.rate[0] + (stage.rate[1] - stage.rate[0]) * passed


@torch.no_grad()
def initialise(vae: WanVAE) -> WanVAE:
    """Begins as a pyramid of mean colours, every picture by itself: the long way through is near the identity at every level.

    Only the present tap of a time convolution is used, resampling in time copies, in space it takes the mean or repeats, and
    what the blocks add is small. Biases of the first layers keep brightness readable behind a norm."""
    for module in vae.modules():
        if isinstance(module, CausalConv3d) and module.kernel_size[0] > 1:
            module.weight[:, :, :-1] = 0
            module.weight[:, :, -1] *= module.kernel_size[0] ** 0.5  # the other taps' share of the variance
    for module in vae.modules():
        if isinstance(module, ResidualBlock):
            module.residual[-1].weight *= 0.2
            if module.shortcut is not None:
                _orthogonal(module.shortcut.weight[:, :, 0, 0, 0])
        if isinstance(module, Downsample):
            module.resample[1].weight.zero_()
            module.resample[1].weight[:, :, :2, :2] = torch.eye(len(module.resample[1].weight))[..., None, None] / 4
        if isinstance(module, Upsample):
            module.resample[1].weight.zero_()
            _orthogonal(module.resample[1].weight[:, :, 1, 1])
        if isinstance(module, (Downsample, Upsample)) and module.in_time:
            out, width = module.time_conv.weight.shape[:2]
            module.time_conv.weight[:, :, -1, 0, 0] = torch.eye(width).repeat(out // width, 1)
            module.time_conv.bias.zero_()
    for first in (vae.encoder.conv1, vae.decoder.conv1):
        first.bias.bernoulli_(0.5).mul_(2).sub_(1)
    vae.conv1.weight[Z_DIM:] = 0
    vae.conv1.bias[Z_DIM:] = -5  # the posterior starts narrow
    return vae


def _orthogonal(matrix: Tensor) -> None:
    """Fills a view [out, in] so that the root mean square stays as it is."""
    out, into = matrix.shape
    matrix.copy_(nn.init.orthogonal_(torch.empty(out, into)) * max(1.0, out / into) ** 0.5)


def reconstruction_loss(made: Tensor, batch: Clips, features: float = FEATURE_WEIGHT) -> Tensor:
    """L1 of the pictures and of their edges; mouth and eyes count 1 + `features` times."""
    weight = 1 + features * torch.maximum(batch.mouth, batch.eyes)
    error = made - batch.pictures
    loss = (weight * error.abs()).mean()
    for axis in (3, 4):
        edge = error.diff(dim=axis).abs()
        loss = loss + EDGE_WEIGHT * (weight.narrow(axis, 1, edge.shape[axis]) * edge).mean()
    return loss


def fixed_reader() -> nn.Conv3d:
    """Reads six numbers off six directions of the latent: a colour, and three shares of brightness. Never trained.

    A reader that was trained along gave up on what the encoder did not send yet."""
    reader = nn.Conv3d(Z_DIM, 3 + RHYTHM, 1).requires_grad_(False)
    reader.weight.copy_(torch.eye(3 + RHYTHM, Z_DIM).view_as(reader.weight) / 2)
    reader.bias.zero_()
    reader.bias[:3] = 0.5
    return reader


def reading_losses(read: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """L1 of what is read off the latents [b, 6, f', h/8, w/8], patch by patch: (colour, rhythm).

    Colour is the patch's mean over a latent's pictures. Rhythm is how much brighter its first, second and third picture are than
    that mean, enlarged, since they differ little; the fourth follows. Without colour an axis that the encoder does not yet send is
    one the decoder does not listen to, and neither begins: green and magenta were still grey after 1000 steps. Without rhythm the
    encoder kept the last picture of the four, and a mouth that opened and shut between two last ones was lost."""
    patches = F.avg_pool3d(pictures, (1, SPATIAL_STRIDE, SPATIAL_STRIDE))
    first = patches[:, :, :1].expand(-1, -1, PIXELS_PER_LATENT, -1, -1)  # stands for itself four times
    groups = rearrange(torch.cat((first, patches[:, :, 1:]), 2), "b c (f p) h w -> b c f p h w", p=PIXELS_PER_LATENT)
    colours = groups.mean(3)
    brightness = groups.mean(1)  # [b, f, p, h, w]
    rhythm = RHYTHM_GAIN * (brightness - brightness.mean(2, keepdim=True))[:, :, :RHYTHM]
    rhythm = rearrange(rhythm, "b f p h w -> b p f h w")
    return (read[:, :3] - colours).abs().mean(), (read[:, 3:] - rhythm).abs().mean()


def psnr(squared_error: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal to noise in dB of pictures 0..1, inside the mask [b, 1, f, h, w] if one is given."""
    if mask is None:
        mean = squared_error.mean()
    else:
        mean = (squared_error * mask).sum() / (mask.sum() * squared_error.shape[1]).clamp_min(1)
    return -10 * torch.log10(mean.clamp_min(1e-12)).item()


@torch.no_grad()
def measure_statistics(vae: WanVAE, size: int, device: str, frames: int = 17) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each raw latent channel over held-out clips: two of [16]."""
    latents = torch.cat([_raw_latents(vae, batch) for batch in held_out(size, device, STATISTICS_CLIPS, frames)])
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


def _raw_latents(vae: WanVAE, batch: Clips) -> Tensor:
    with mixed_precision(batch.pictures.device):
        return vae.encode(batch.pictures * 2 - 1, {})[0].float()


@torch.no_grad()
def fold_statistics(vae: WanVAE, mean: Tensor, std: Tensor) -> None:
    """Makes raw latents of measured `mean` and `std` [16] have Wan's, and the decoder read them so: pictures stay the same."""
    wan_mean, wan_std = mean.new_tensor(LATENT_MEAN), mean.new_tensor(LATENT_STD)
    gain = wan_std / std  # new = (old - mean) * gain + wan_mean
    vae.conv1.weight[:Z_DIM] *= gain.view(-1, 1, 1, 1, 1)
    vae.conv1.bias[:Z_DIM] = (vae.conv1.bias[:Z_DIM] - mean) * gain + wan_mean
    vae.conv1.bias[Z_DIM:] += 2 * gain.log()
    vae.conv2.bias += vae.conv2.weight.flatten(1) @ (mean - wan_mean / gain)
    vae.conv2.weight /= gain.view(1, -1, 1, 1, 1)


def held_out(size: int, device: str, clips: int, frames: int, seed: int = HELD_OUT_SEED) -> Iterator[Clips]:
    """Clips of identities that training never draws, four at a time."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(0, clips, 4):
        yield draw(4, frames, size, generator, "held-out").to(device)


@torch.no_grad()
def measure(vae: WanVAE, size: int, device: str) -> dict[str, float]:
    """PSNR on held-out clips (whole, mouth, eyes), on single pictures, and late in a long clip; streamed against whole."""
    report = {}
    errors, mouths, eyes = [], [], []
    for batch in held_out(size, device, MEASURED_CLIPS, 17, HELD_OUT_SEED + 1):
        errors.append((_reconstruct(vae, batch.pictures) - batch.pictures).square())
        mouths.append(batch.mouth)
        eyes.append(batch.eyes)
    error = torch.cat(errors)
    report["psnr"] = psnr(error)
    report["psnr_mouth"] = psnr(error, torch.cat(mouths))
    report["psnr_eyes"] = psnr(error, torch.cat(eyes))
    pictures = torch.cat([b.pictures for b in held_out(size, device, 2 * MEASURED_CLIPS, 1, HELD_OUT_SEED + 2)])
    report["psnr_picture"] = psnr((_reconstruct(vae, pictures) - pictures).square())
    long = torch.cat([b.pictures for b in held_out(size, device, MEASURED_CLIPS // 4, 65, HELD_OUT_SEED + 3)])
    made = _reconstruct(vae, long)
    report["psnr_long_first"] = psnr((made - long).square()[:, :, 1:17])
    report["psnr_long_last"] = psnr((made - long).square()[:, :, -16:])
    report["colour_drift"] = (made - long).mean((3, 4))[:, :, -16:].mean(2).abs().max().item()
    report["streamed_minus_whole"] = _streaming_error(vae, long[:1, :, :17])
    return {name: round(value, 6) for name, value in report.items()}


def _reconstruct(vae: WanVAE, pictures: Tensor) -> Tensor:
    with mixed_precision(pictures.device):
        return decode_latents(vae, encode_clip(vae, pictures), DecoderState())


def _streaming_error(vae: WanVAE, pictures: Tensor) -> float:
    """The largest difference between pushing latents and pictures piece by piece and all at once, in float32."""
    latents = encode_clip(vae, pictures)
    encoder_state, decoder_state = EncoderState(), DecoderState()
    pieces = [pictures[:, :, :1], *pictures[:, :, 1:].split(4, dim=2)]
    streamed = torch.cat([encode_pictures(vae, piece, encoder_state) for piece in pieces], dim=2)
    whole = decode_latents(vae, latents, DecoderState())
    made = torch.cat([decode_latents(vae, piece, decoder_state) for piece in latents.split(1, dim=2)], dim=2)
    return max((streamed - latents).abs().max().item(), (made - whole).abs().max().item())


def finish(training: VAETraining, file: Path) -> Path:
    """Writes the file, reads what it would give, and refuses a codec whose streams differ from its clips."""
    report = export(training, file)
    if report["streamed_minus_whole"] > 1e-4:
        raise ValueError(f"streamed and whole differ by {report['streamed_minus_whole']:.1e}, at most 1e-4 is expected")
    return file


def export(training: VAETraining, file: Path) -> dict[str, float]:
    """Writes the running mean of the weights in float16, with what was measured on exactly these weights in the header."""
    vae = prepare(WanVAE(training.dim), torch.float32, training.device)
    weights = {name: weight.detach().half().contiguous().cpu() for name, weight in training.mean_vae.state_dict().items()}
    vae.load_state_dict(weights)
    report = measure(vae, training.size, training.device)
    about = {"name": "kf-tiny-vae", "size": training.size, "steps": training.step, "minutes": round(training.seconds / 60, 1), **report}
    unfinished = file.with_suffix(".unfinished")
    save_file(weights, unfinished, metadata={"format": "pt", "kf_tiny_vae": json.dumps(about)})
    os.replace(unfinished, file)
    tqdm.write(json.dumps(about))
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train kf-tiny's autoencoder.")
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the result")
    parser.add_argument("--size", type=int, default=96, help="pictures are this many pixels high and wide")
    parser.add_argument("--minutes", type=float, default=50, help="the whole budget, in minutes of wall-clock time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    train_vae(arguments.pop("run"), **arguments)
