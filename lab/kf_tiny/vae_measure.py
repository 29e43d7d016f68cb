"""What an autoencoder is worth on faces that it never saw, and the statistics of its latents, which become Wan's."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from kf_core.training.precision import mixed_precision
from kf_core.vae.streaming import DecoderState, EncoderState, decode_latents, encode_clip, encode_frames
from kf_core.vae.wan import LATENT_MEAN, LATENT_STD, Z_DIM, WanVAE

from .vae_clips import HELD_OUT_SEED, Clips, held_out
from .vae_losses import fixed_reader, reading_targets

STATISTICS_CLIPS = 64  # from which the latents' mean and deviation are taken
MEASURED_CLIPS = 16


def psnr(squared_error: Tensor, mask: Tensor | None = None) -> float:
    """Peak signal to noise in dB of frames 0..1, inside the mask [b, 1, f, h, w] if one is given."""
    if mask is None:
        mean = squared_error.mean()
    else:
        mean = (squared_error * mask).sum() / (mask.sum() * squared_error.shape[1]).clamp_min(1)
    return -10 * torch.log10(mean.clamp_min(1e-12)).item()


@torch.no_grad()
def measure_statistics(vae: WanVAE, size: int, device: str, frames: int = 17, clips: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each raw latent channel over held-out clips: two of [16]."""
    latents = torch.cat([_raw_latents(vae, batch) for batch in held_out(size, device, clips or STATISTICS_CLIPS, frames)])
    return latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))


def _raw_latents(vae: WanVAE, batch: Clips) -> Tensor:
    with mixed_precision(batch.frames.device):
        return vae.encode(batch.frames * 2 - 1, {})[0].float()


@torch.no_grad()
def fold_statistics(vae: WanVAE, mean: Tensor, std: Tensor) -> None:
    """Makes raw latents of measured `mean` and `std` [16] have Wan's, and the decoder read them so: frames stay the same."""
    wan_mean, wan_std = mean.new_tensor(LATENT_MEAN), mean.new_tensor(LATENT_STD)
    gain = wan_std / std
    rescale_latents(vae, gain, wan_mean - mean * gain)


@torch.no_grad()
def rescale_latents(vae: WanVAE, gain: Tensor, offset: Tensor) -> None:
    """Makes every raw latent x * `gain` + `offset` ([16] each), and the decoder read them so: frames stay the same."""
    vae.conv1.weight[:Z_DIM] *= gain.view(-1, 1, 1, 1, 1)
    vae.conv1.bias[:Z_DIM] = vae.conv1.bias[:Z_DIM] * gain + offset
    vae.conv1.bias[Z_DIM:] += 2 * gain.abs().log()
    vae.conv2.bias -= vae.conv2.weight.flatten(1) @ (offset / gain)
    vae.conv2.weight /= gain.view(1, -1, 1, 1, 1)


@torch.no_grad()
def unfold_statistics(vae: WanVAE, size: int, device: str, frames: int = 9, clips: int = 32) -> None:
    """Gives a frozen autoencoder back the latents of its training: those that a fixed reader reads as it wants them, the others of
    mean 0 and deviation 1. Frames stay the same."""
    batches = list(held_out(size, device, clips, frames, HELD_OUT_SEED + 4))
    raw = torch.cat([_raw_latents(vae, batch) for batch in batches]).transpose(0, 1).flatten(1)  # [16, everywhere]
    targets = torch.cat([reading_targets(batch.frames) for batch in batches]).transpose(0, 1).flatten(1)
    read = len(targets)
    gain, offset = 1 / raw.std(1), -raw.mean(1) / raw.std(1)
    reader = fixed_reader()
    factor, bias = reader.weight.view(read, Z_DIM).diagonal().to(raw), reader.bias.to(raw)
    x, y = raw[:read] - raw[:read].mean(1, keepdim=True), targets - targets.mean(1, keepdim=True)
    slope = (x * y).sum(1) / x.square().sum(1)
    gain[:read] = slope / factor
    offset[:read] = (targets.mean(1) - slope * raw[:read].mean(1) - bias) / factor
    rescale_latents(vae, gain, offset)


@torch.no_grad()
def measure(vae: WanVAE, size: int, device: str) -> dict[str, float]:
    """PSNR on held-out clips (whole, mouth, eyes), on single frames, and late in a long clip; streamed against whole."""
    report = {}
    errors, mouths, eyes = [], [], []
    for batch in held_out(size, device, MEASURED_CLIPS, 17, HELD_OUT_SEED + 1):
        errors.append((_reconstruct(vae, batch.frames) - batch.frames).square())
        mouths.append(batch.mouth)
        eyes.append(batch.eyes)
    error = torch.cat(errors)
    report["psnr"] = psnr(error)
    report["psnr_mouth"] = psnr(error, torch.cat(mouths))
    report["psnr_eyes"] = psnr(error, torch.cat(eyes))
    frames = torch.cat([b.frames for b in held_out(size, device, 2 * MEASURED_CLIPS, 1, HELD_OUT_SEED + 2)])
    report["psnr_image"] = psnr((_reconstruct(vae, frames) - frames).square())
    long = torch.cat([b.frames for b in held_out(size, device, MEASURED_CLIPS // 4, 65, HELD_OUT_SEED + 3)])
    made = _reconstruct(vae, long)
    report["psnr_long_first"] = psnr((made - long).square()[:, :, 1:17])
    report["psnr_long_last"] = psnr((made - long).square()[:, :, -16:])
    report["colour_drift"] = (made - long).mean((3, 4))[:, :, -16:].mean(2).abs().max().item()
    report["streamed_minus_whole"] = _streaming_error(vae, long[:1, :, :17])
    return {name: round(value, 6) for name, value in report.items()}


def _reconstruct(vae: WanVAE, frames: Tensor) -> Tensor:
    with mixed_precision(frames.device):
        return decode_latents(vae, encode_clip(vae, frames), DecoderState())


def _streaming_error(vae: WanVAE, frames: Tensor) -> float:
    """The largest difference between pushing latents and frames piece by piece and all at once, in float32."""
    with _whole_float32():
        return _pushed_minus_whole(vae, frames)


def _whole_float32() -> AbstractContextManager:
    """No TF32 in cuDNN's convolutions, where PyTorch has it by default: its ten bits round pieces and wholes differently."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


def _pushed_minus_whole(vae: WanVAE, frames: Tensor) -> float:
    latents = encode_clip(vae, frames)
    encoder_state, decoder_state = EncoderState(), DecoderState()
    pieces = [frames[:, :, :1], *frames[:, :, 1:].split(4, dim=2)]
    streamed = torch.cat([encode_frames(vae, piece, encoder_state) for piece in pieces], dim=2)
    whole = decode_latents(vae, latents, DecoderState())
    made = torch.cat([decode_latents(vae, piece, decoder_state) for piece in latents.split(1, dim=2)], dim=2)
    return max((streamed - latents).abs().max().item(), (made - whole).abs().max().item())
