"""TAEHV, the tiny decoder: frames at a fraction of Wan's own decoder's cost, a little softer. Decodes only.

Every layer works on single frames; what a stream remembers is one frame at the input of each `MemBlock`. Of latent frame 0 the first
three frames are start-up and are dropped, so n latents become 1 + 4 (n - 1) frames, as with Wan's own decoder.

Two published files have the same names and shapes and want different latents: madebyollin's `taew2_1` decodes what the generator draws
(model space); LightX2V's `lighttaew2_1` decodes Wan's raw latents. Which one a network is must therefore be said: `space`.
Source: madebyollin/taehv (MIT), taehv.py; LightX2V, lightx2v/models/video_encoders/hf/wan/vae_tiny.py (`need_scaled`).
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from ..content_id import fingerprint
from ..timeline import PIXELS_PER_LATENT
from .latents import Z_DIM, Space
from .streaming import DecoderState, VideoDecoder
from .wan import Past, extend, from_model_space

WIDTHS = (256, 128, 64, 64)  # channels of the decoder's four levels in the published files
GROWS = (1, 2, 2)  # frames that each level makes of one
LONGEST = 3.0  # latents are squashed into +-3 before they are read


class TinyVAE(nn.Module):
    """The decoder under its published names, `decoder.0` ... `decoder.22`; holds weights only."""

    def __init__(self, space: Space, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.space = space
        layers: list[nn.Module] = [Squash(), _conv(Z_DIM, widths[0]), nn.ReLU()]
        for level, grow in enumerate(GROWS):
            width, next_width = widths[level], widths[level + 1]
            layers += [MemBlock(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2), Grow(width, grow), _conv(width, next_width, bias=False)]
        self.decoder = nn.Sequential(*layers, nn.ReLU(), _conv(widths[-1], 3))

    @property
    def content_id(self) -> str:
        """The same weights in another space make other frames."""
        return f"{self.space} {fingerprint(self.decoder)}"

    def decode(self, latents: Tensor, past: Past) -> Tensor:
        """Latents [b, 16, f, h, w] in this network's own space -> frames [b, 3, 4f, 8h, 8w], about 0..1, start-up included."""
        b = latents.shape[0]
        x = rearrange(latents, "b c f h w -> (b f) c h w")
        for place, layer in enumerate(self.decoder):
            if isinstance(layer, MemBlock):
                x = layer(x, _one_before(x, b, past, f"decoder.{place}"))
            else:
                x = layer(x)
        return rearrange(x, "(b f) c h w -> b c f h w", b=b)


class TinyDecoder(VideoDecoder):
    """Turns latent chunks into frames by a TinyVAE; a stream's state is a DecoderState, as with Wan's."""

    vae: TinyVAE

    def decode_latents(self, latents: Tensor, state: DecoderState, in_place: bool = False) -> Tensor:
        """Latents [b, 16, f, h, w] in model space -> frames [b, 3, pf, 8h, 8w] RGB 0..1, in the latents' precision."""
        past = state.past if in_place else dict(state.past)
        own = latents if self.vae.space == "model" else from_model_space(latents)
        frames = self.vae.decode(own.to(self.vae.decoder[1].weight.dtype), past)
        if state.next_frame == 0:
            frames = frames[:, :, PIXELS_PER_LATENT - 1 :]
        state.past, state.next_frame = past, state.next_frame + latents.shape[2]
        return frames.to(latents.dtype).clamp(0, 1)


class Squash(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / LONGEST) * LONGEST


class MemBlock(nn.Module):
    """Three convolutions over a frame and the one before it, beside a straight path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return torch.relu(self.conv(torch.cat((x, before), dim=1)) + x)


class Grow(nn.Module):
    """Several frames of one: [n, c, h, w] -> [n * grow, c, h, w], in the order of time."""

    def __init__(self, width: int, grow: int) -> None:
        super().__init__()
        self.grow = grow
        self.conv = nn.Conv2d(width, width * grow, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(self.conv(x), "n (grow c) h w -> (n grow) c h w", grow=self.grow)


def _conv(before: int, after: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=bias)


def _one_before(x: Tensor, b: int, past: Past, name: str) -> Tensor:
    """The frame before each of `x` [b * f, c, h, w]; before the first of a stream there is black. Remembers the last one."""
    frames = rearrange(x, "(b f) c h w -> b c f h w", b=b)
    joined, seen = extend(past, name, frames, keep=1)
    if not seen:
        joined = torch.cat((torch.zeros_like(frames[:, :, :1]), joined), dim=2)
    return rearrange(joined[:, :, :-1], "b c f h w -> (b f) c h w")
