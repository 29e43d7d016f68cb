"""Wan 2.1's video autoencoder: its modules under Wan's own parameter names, at any width.

Causal in time: a convolution sees the present and the past, never the future. What it still needs of the past is handed in
as `Past` and carried by the caller (`streaming.py`); the networks hold weights only. Frames here are RGB -1..1.
"Model space" is what the generator works in: Wan's raw latents shifted and scaled to zero mean and unit variance.

Source: Wan 2.1 (Apache-2.0), wan/modules/vae.py; checked against diffusers' AutoencoderKLWan.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .latents import LATENT_MEAN, LATENT_STD, Z_DIM

Past = dict[str, Tensor]  # a time convolution's name -> the frames it still needs [b, c, f, h, w]; empty before frame 0

SPATIAL_STRIDE = 8
DIM_MULT = (1, 2, 4, 4)
RES_BLOCKS = 2
TEMPORAL_DOWNSAMPLE = (False, True, True)
ENCODER_REMEMBERS = 28  # latent frames: what lies further back (112 frames) does not reach a latent
# What lies further back does not reach a frame: 40 latent frames by the taps. Winograd's groups of frames (`winograd.py`) share their
# rounding, so a last bit reaches twice as far. For tiny decoders, too, which remember less.
DECODER_REMEMBERS = 80  # latent frames


def to_model_space(raw: Tensor) -> Tensor:
    """Raw latents -> zero mean, unit variance: [b, 16, f, h, w]."""
    mean, std = _statistics(raw)
    return (raw - mean) / std


def from_model_space(latents: Tensor) -> Tensor:
    """The inverse of `to_model_space`: [b, 16, f, h, w]."""
    mean, std = _statistics(latents)
    return latents * std + mean


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (1, Z_DIM, 1, 1, 1)
    return like.new_tensor(LATENT_MEAN).view(shape), like.new_tensor(LATENT_STD).view(shape)


class WanVAE(nn.Module):
    """Encoder, decoder and the two 1x1x1 convolutions between them. `dim` is 96 in Wan 2.1, 16 in kf-tiny."""

    def __init__(self, dim: int = 96):
        super().__init__()
        self.dim = dim
        self.encoder = Encoder(dim)
        self.conv1 = CausalConv3d(2 * Z_DIM, 2 * Z_DIM, 1)
        self.conv2 = CausalConv3d(Z_DIM, Z_DIM, 1)
        self.decoder = Decoder(dim)
        for name, module in self.named_modules():
            if isinstance(module, CausalConv3d):
                module.name = name

    def encode(self, frames: Tensor, past: Past) -> tuple[Tensor, Tensor]:
        """Frames [b, 3, f, h, w] -1..1 -> raw mean and log-variance [b, 16, f', h/8, w/8]."""
        return self.conv1(self.encoder(frames, past), past).chunk(2, dim=1)

    def decode(self, raw: Tensor, past: Past) -> Tensor:
        """Raw latents [b, 16, f', h, w] -> frames [b, 3, f, 8h, 8w], about -1..1, not clamped."""
        return self.decoder(self.conv2(raw, past), past)


class WanDecoder(nn.Module):
    """The half of a `WanVAE` that makes frames, for itself: of any width, on the latents of an autoencoder of another."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.conv2 = CausalConv3d(Z_DIM, Z_DIM, 1)
        self.decoder = Decoder(dim)
        for name, module in self.named_modules():
            if isinstance(module, CausalConv3d):
                module.name = name

    decode = WanVAE.decode


class Encoder(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        widths = [dim * m for m in (1, *DIM_MULT)]
        self.conv1 = CausalConv3d(3, widths[0], 3)
        layers = []
        for level, (width, next_width) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            for block in range(RES_BLOCKS):
                layers.append(ResidualBlock(width if block == 0 else next_width, next_width))
            if level < len(TEMPORAL_DOWNSAMPLE):
                layers.append(Downsample(next_width, in_time=TEMPORAL_DOWNSAMPLE[level]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(widths[-1])
        self.head = nn.Sequential(RMSNorm(widths[-1]), nn.SiLU(), CausalConv3d(widths[-1], 2 * Z_DIM, 3))

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = self.conv1(x, past)
        return _run(self.head, _run(self.middle, _run(self.downsamples, x, past), past), past)


class Decoder(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        widths = [dim * m for m in (DIM_MULT[-1], *reversed(DIM_MULT))]
        upsample_in_time = TEMPORAL_DOWNSAMPLE[::-1]
        self.conv1 = CausalConv3d(Z_DIM, widths[0], 3)
        self.middle = _middle(widths[0])
        layers = []
        for level, (width, next_width) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            width = width if level == 0 else width // 2  # an upsampling halves the channels
            for block in range(RES_BLOCKS + 1):
                layers.append(ResidualBlock(width if block == 0 else next_width, next_width))
            if level < len(upsample_in_time):
                layers.append(Upsample(next_width, in_time=upsample_in_time[level]))
        self.upsamples = nn.Sequential(*layers)
        self.head = nn.Sequential(RMSNorm(widths[-1]), nn.SiLU(), CausalConv3d(widths[-1], 3, 3))

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = self.conv1(x, past)
        return _run(self.head, _run(self.upsamples, _run(self.middle, x, past), past), past)


class CausalConv3d(nn.Conv3d):
    """A convolution that sees its own frame and the `kernel - 1` before it; before frame 0 there are zeros."""

    _name = ""

    def __init__(self, in_channels: int, out_channels: int, kernel: int | tuple[int, int, int], stride: int = 1):
        space = kernel // 2 if isinstance(kernel, int) else kernel[1] // 2
        super().__init__(in_channels, out_channels, kernel, stride=(stride, 1, 1), padding=(0, space, space))

    @property
    def name(self) -> str:
        """Its place in the tree, set once by WanVAE or WanDecoder; the key of its past. Raises ValueError where nobody has set it."""
        if not self._name:
            raise ValueError(f"this convolution of {self.in_channels} to {self.out_channels} channels has no name, and its past needs one")
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    def forward(self, x: Tensor, past: Past) -> Tensor:
        reach = self.kernel_size[0] - 1
        if reach == 0:
            return self._of_image(x) if x.shape[2] == 1 else super().forward(x)
        x, seen = extend(past, self.name, x, keep=reach)
        if seen == 0 and x.shape[2] == 1:  # the other taps would meet zeros only
            return self._of_image(x)
        if seen < reach:
            x = F.pad(x, (0, 0, 0, 0, reach - seen, 0))
        is_slow = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and self.stride[0] == 1
        return self._tap_by_tap(x) if is_slow else super().forward(x)

    def _of_image(self, x: Tensor) -> Tensor:
        """One frame [b, c, 1, h, w], by the last tap, as a 2-D convolution.

        Not as a 3D one: its backward in bfloat16 ends the process on CPUs with AMX (PyTorch 2.13, training on single frames)."""
        return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=self.padding[1:]).unsqueeze(2)

    def _tap_by_tap(self, x: Tensor) -> Tensor:
        """The same sum as 2-D convolutions, 4 to 9 times as fast: PyTorch has no fast 3D convolution for float32 on CPUs.

        A tap is laid out channels last, and so are the answer and all that follows, as `streaming.prepare` means it."""
        frames = x.shape[2] - self.kernel_size[0] + 1
        made = None
        for tap, weight in enumerate(self.weight.unbind(2)):
            seen = rearrange(x[:, :, tap : tap + frames], "b c f h w -> (b f) c h w")
            weight = weight.contiguous(memory_format=torch.channels_last)
            part = F.conv2d(seen, weight, self.bias if tap == 0 else None, padding=self.padding[1:])
            made = part if made is None else made + part
        return rearrange(made, "(b f) c h w -> b c f h w", f=frames)


def extend(past: Past, name: str, x: Tensor, keep: int) -> tuple[Tensor, int]:
    """`x` with the remembered frames in front, and how many they were; remembers the last `keep` of the whole.

    Raises ValueError without a name: what has none would take another's past for its own."""
    if not name:
        raise ValueError("a past needs a name, and this layer has none")
    before = past.get(name)
    seen = 0 if before is None else before.shape[2]
    if seen:
        x = torch.cat([before.to(x.dtype), x], dim=2)
    past[name] = x[:, :, -keep:].clone()  # a view would keep the whole of x alive
    return x, seen


class RMSNorm(nn.Module):
    """Divides each position by the root mean square over its channels; the sum is taken in float32 at least."""

    def __init__(self, dim: int, spatial_axes: int = 3):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *(1,) * spatial_axes))

    def forward(self, x: Tensor) -> Tensor:
        precision = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=precision)
        scale = x.shape[1] ** 0.5 / length.clamp_min(1e-12)
        return x * scale.to(x.dtype) * self.gamma.to(x.dtype)


class ResidualBlock(nn.Module):
    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.residual = nn.Sequential(
            RMSNorm(in_dim),
            nn.SiLU(),
            CausalConv3d(in_dim, out_dim, 3),
            RMSNorm(out_dim),
            nn.SiLU(),
            nn.Identity(),  # dropout in Wan's own training; keeps the numbering
            CausalConv3d(out_dim, out_dim, 3),
        )
        self.shortcut = CausalConv3d(in_dim, out_dim, 1) if in_dim != out_dim else None

    def forward(self, x: Tensor, past: Past) -> Tensor:
        straight = x if self.shortcut is None else self.shortcut(x, past)
        return straight + _run(self.residual, x, past)


class AttentionBlock(nn.Module):
    """Every position of a frame looks at every other of the same frame; one head."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = RMSNorm(dim, spatial_axes=2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, _, h, _ = x.shape
        frames = rearrange(x, "b c f h w -> (b f) c h w")
        q, k, v = rearrange(self.to_qkv(self.norm(frames)), "p (three d) h w -> three p 1 (h w) d", three=3)
        out = rearrange(F.scaled_dot_product_attention(q, k, v), "p 1 (h w) d -> p d h w", h=h)
        return x + rearrange(self.proj(out), "(b f) c h w -> b c f h w", b=b)


class Downsample(nn.Module):
    """Halves height and width; `in_time` also makes one frame of two, except of frame 0, which stays alone.

    frame  [0 | 1 2 | 3 4]  ->  [0 | 1 | 2]"""

    def __init__(self, dim: int, in_time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))
        if in_time:
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=2)
        self.in_time = in_time

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = _each_frame(self.resample, x)
        if not self.in_time:
            return x
        x, seen = extend(past, self.time_conv.name, x, keep=1)
        first = [] if seen else [x[:, :, :1]]
        later = [nn.Conv3d.forward(self.time_conv, x)] if x.shape[2] > 1 else []  # frame 0 serves as the past of 1 and 2
        return torch.cat(first + later, dim=2)


class Upsample(nn.Module):
    """Doubles height and width, halves the channels; `in_time` also makes two frames of one, except of frame 0.

    frame  [0 | 1 | 2]  ->  [0 | 1 2 | 3 4]; the time convolution does not see frame 0, not even as past."""

    def __init__(self, dim: int, in_time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest-exact"), nn.Conv2d(dim, dim // 2, 3, padding=1))
        if in_time:
            self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1))
        self.in_time = in_time

    def forward(self, x: Tensor, past: Past) -> Tensor:
        if self.in_time:
            first = x[:, :, : 0 if self.time_conv.name in past else 1]
            past.setdefault(self.time_conv.name, x[:, :, :0].clone())  # frame 0 has passed
            later = x[:, :, first.shape[2] :]
            if later.shape[2]:
                later = rearrange(self.time_conv(later, past), "b (two c) f h w -> b c (f two) h w", two=2)
            x = torch.cat([first, later], dim=2)
        return _each_frame(self.resample, x)


def _middle(dim: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(dim, dim), AttentionBlock(dim), ResidualBlock(dim, dim))


def _each_frame(layer: nn.Module, x: Tensor) -> Tensor:
    return rearrange(layer(rearrange(x, "b c f h w -> (b f) c h w")), "(b f) c h w -> b c f h w", b=x.shape[0])


def _run(layers: nn.Sequential, x: Tensor, past: Past) -> Tensor:
    """The layers in turn; those that remember get the past."""
    for layer in layers:
        remembers = isinstance(layer, (CausalConv3d, ResidualBlock, Downsample, Upsample))
        x = layer(x, past) if remembers else layer(x)
    return x
