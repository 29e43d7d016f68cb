"""How an autoencoder begins, and what it is asked for: frames near the truth, and latents from which some things can be read.

Knows the networks and no optimiser.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from kf_core.timeline import PIXELS_PER_LATENT
from kf_core.vae.wan import SPATIAL_STRIDE, Z_DIM, CausalConv3d, Downsample, ResidualBlock, Upsample, WanVAE

from .vae_clips import Clips

EDGE_WEIGHT = 1.0
SQUARE_WEIGHT = 5.0
FEATURE_WEIGHT = 2.0  # added in mouth and eye boxes, so they count three times; in the stage `mouths` more
RHYTHM, RHYTHM_GAIN = PIXELS_PER_LATENT - 1, 4.0  # numbers that say how brightness goes within a latent's frames


@torch.no_grad()
def initialise(vae: WanVAE) -> WanVAE:
    """Begins as a pyramid of mean colours, every frame by itself: the long way through is near the identity at every level.

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
    """L1 of the frames and of their edges, and squared error; mouth and eyes count 1 + `features` times.

    By L1 alone what is thin and rare is best left out while its place is uncertain: earrings, rims of glasses, freckles."""
    weight = 1 + features * torch.maximum(batch.mouth, batch.eyes)
    error = made - batch.frames
    loss = (weight * (error.abs() + SQUARE_WEIGHT * error.square())).mean()
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


def reading_losses(read: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """L1 of what is read off the latents [b, 6, f', h/8, w/8], patch by patch: (colour, rhythm).

    Colour is the patch's mean over a latent's frames. Rhythm is how much brighter its first, second and third frame are than
    that mean, enlarged, since they differ little; the fourth follows. Without colour an axis that the encoder does not yet send is
    one the decoder does not listen to, and neither begins: green and magenta were still grey after 1000 steps. Without rhythm the
    encoder kept the last frame of the four, and a mouth that opened and shut between two last ones was lost."""
    error = (read - reading_targets(frames)).abs()
    return error[:, :3].mean(), error[:, 3:].mean()


def reading_targets(frames: Tensor) -> Tensor:
    """What should be read off the latents of frames [b, 3, pf, h, w]: [b, 6, f, h/8, w/8], three of colour and three of rhythm."""
    patches = F.avg_pool3d(frames, (1, SPATIAL_STRIDE, SPATIAL_STRIDE))
    first = patches[:, :, :1].expand(-1, -1, PIXELS_PER_LATENT, -1, -1)  # stands for itself four times
    groups = rearrange(torch.cat((first, patches[:, :, 1:]), 2), "b c (f p) h w -> b c f p h w", p=PIXELS_PER_LATENT)
    brightness = groups.mean(1)  # [b, f, p, h, w]
    rhythm = RHYTHM_GAIN * (brightness - brightness.mean(2, keepdim=True))[:, :, :RHYTHM]
    return torch.cat((groups.mean(3), rearrange(rhythm, "b f p h w -> b p f h w")), 1)
