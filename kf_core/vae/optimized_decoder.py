"""Wan's decoder as a CPU runs it: the numbers of the plain modules (`wan.py`) in less work. Without gradients, one sample at a time.

- A convolution over time is half as many 2-D convolutions (`winograd.py`) in float32. In bfloat16 it stays as it is.
- Doubling a frame and convolving it is one convolution of 2 x 2 taps on the small one: 4 products where there were 9.
- Norm and SiLU are written where the convolution reads them, behind what it remembers; a block's answer is added to its input in place.
- After the last layer that adds frames, a few frames at a time go through all that follows: they stay in the processor's caches.

States are those of the plain modules: a stream goes on under either. Serves Wan's tree of modules only.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import winograd
from .wan import AttentionBlock, CausalConv3d, Past, ResidualBlock, RMSNorm, Upsample, WanDecoder, WanVAE

IN_CACHE = 2**20  # numbers that a layer's frames may be, when those of a few frames go on before those of the next


def serves(raw: Tensor) -> bool:
    """Can these latents [b, 16, f, h, w] be decoded here?"""
    return raw.device.type == "cpu" and raw.shape[0] == 1 and not torch.is_grad_enabled()


def decode(vae: WanVAE | WanDecoder, raw: Tensor, past: Past) -> Tensor:
    """What `vae.decode` gives: raw latents [1, 16, f', h, w] -> frames [1, 3, f, 8h, 8w]."""
    decoder, walk = vae.decoder, _Walk(past)
    layers = list(decoder.upsamples)
    last = max(place for place, layer in enumerate(layers) if isinstance(layer, Upsample) and layer.in_time) + 1
    x = walk.convolve(decoder.conv1, walk.convolve(vae.conv2, _frames(raw)))
    x = walk.through((*decoder.middle, *layers[:last]), x)
    norm, _, conv = decoder.head
    at_once = max(1, IN_CACHE // x[0].numel() // winograd.MOST) * winograd.MOST
    frames = [walk.convolve(conv, walk.through(layers[last:], part), norm) for part in x.split(at_once)]
    return _clip(torch.cat(frames))


class _Walk:
    """One way through the network. Frames are [f, c, h, w], channels last, and may be changed in place."""

    def __init__(self, past: Past) -> None:
        self._past = past
        self._room = torch.empty(0)  # for what a convolution reads; kept from one to the next, since fresh memory is slow to touch

    def through(self, layers: Iterable[nn.Module], x: Tensor) -> Tensor:
        for layer in layers:
            if isinstance(layer, ResidualBlock):
                x = self._residual(layer, x)
            elif isinstance(layer, Upsample):
                x = self._upsample(layer, x)
            elif isinstance(layer, AttentionBlock):
                x = _frames(layer(_clip(x)))
            else:
                raise TypeError(f"no {type(layer).__name__} is known in Wan's decoder")
        return x

    def convolve(self, conv: CausalConv3d, x: Tensor, norm: RMSNorm | None = None, onto: Tensor | None = None) -> Tensor:
        """`conv` of the frames, of their norm's SiLU where there is a norm; `onto` takes the sum in place where it is given."""
        reach = conv.kernel_size[0] - 1
        if reach == 0:
            return F.conv2d(x, conv.weight[:, :, 0], conv.bias, padding=conv.padding[1:])
        before = self._past.get(conv.name)
        seen = 0 if before is None else before.shape[2]
        frames = self._window(reach + x.shape[0], x)
        frames[: reach - seen].zero_()
        if seen:
            frames[reach - seen : reach].copy_(_frames(before))
        if norm is None:
            frames[reach:].copy_(x)
        else:
            _activate(norm, x, out=frames[reach:])
        self._past[conv.name] = _clip(frames[reach - seen :][-reach:].clone())
        if seen == 0 and x.shape[0] == 1:  # one frame: the other taps would meet zeros only
            made = F.conv2d(frames[-1:], conv.weight[:, :, -1], conv.bias, padding=conv.padding[1:])
        elif x.dtype in (torch.float32, torch.float64):
            return winograd.convolve(frames, conv.weight, conv.bias, conv.padding[1:], onto)
        else:
            made = _frames(F.conv3d(_clip(frames), conv.weight, conv.bias, padding=conv.padding))
        return made if onto is None else onto.add_(made)

    def _residual(self, block: ResidualBlock, x: Tensor) -> Tensor:
        norm1, _, conv1, norm2, _, _, conv2 = block.residual
        straight = x if block.shortcut is None else self.convolve(block.shortcut, x)
        return self.convolve(conv2, self.convolve(conv1, x, norm1), norm2, onto=straight)

    def _upsample(self, layer: Upsample, x: Tensor) -> Tensor:
        if layer.in_time:
            name = layer.time_conv.name
            first, later = x.split((0 if name in self._past else 1, x.shape[0] - (name not in self._past)))
            self._past.setdefault(name, _clip(x[:0].clone()))  # frame 0 has passed
            if later.shape[0]:
                two = self.convolve(layer.time_conv, later).unflatten(1, (2, -1))  # [f, two, c, h, w]
                later = two.movedim(2, -1).flatten(0, 1).movedim(-1, 1)
            x = torch.cat((first, later)) if first.shape[0] else later
        return _doubled(layer.resample[1], x)

    def _window(self, frames: int, like: Tensor) -> Tensor:
        """Room for so many frames; what it held before is lost."""
        _, c, h, w = like.shape
        if self._room.numel() < frames * c * h * w or self._room.dtype != like.dtype:
            self._room = like.new_empty(frames * c * h * w)
        return self._room[: frames * c * h * w].view(frames, h, w, c).movedim(-1, 1)


def _activate(norm: RMSNorm, x: Tensor, out: Tensor) -> None:
    """SiLU of the norm of frames, into `out`."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    torch.mul(x, (x.shape[1] ** 0.5 / length.clamp_min_(1e-12)).to(x.dtype), out=out)
    F.silu(out.mul_(norm.gamma[..., 0].to(x.dtype)), inplace=True)


def _doubled(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Every pixel twice in height and width, then `conv` of 3 x 3 taps: [f, c, h, w] -> [f, o, 2h, 2w].

    Even rows see the small rows i - 1, i, i and odd ones i, i, i + 1: two taps, of which one is the sum of two. Columns likewise."""
    f, _, h, w = x.shape
    quarters = [quarter for row in _even_and_odd(conv.weight, dim=2) for quarter in _even_and_odd(row, dim=3)]
    weight = torch.cat(quarters).contiguous(memory_format=torch.channels_last)
    bias = None if conv.bias is None else conv.bias.repeat(4)
    made = F.conv2d(x, weight, bias, padding=1).unflatten(1, (4, -1))  # [f, quarter, o, h + 1, w + 1]
    doubled = x.new_empty(f, 2 * h, 2 * w, made.shape[2]).movedim(-1, 1)
    for quarter in range(4):
        row, column = divmod(quarter, 2)
        doubled[:, :, row::2, column::2].copy_(made[:, quarter, :, row : row + h, column : column + w])
    return doubled


def _even_and_odd(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps on what was doubled as two on what was not: at an even place, and at an odd one."""
    before, here, after = weight.split(1, dim=dim)
    return torch.cat((before, here + after), dim=dim), torch.cat((before + here, after), dim=dim)


def _frames(clip: Tensor) -> Tensor:
    """[1, c, f, h, w] -> [f, c, h, w], the same memory."""
    return clip[0].movedim(1, 0)


def _clip(frames: Tensor) -> Tensor:
    """[f, c, h, w] -> [1, c, f, h, w], the same memory."""
    return frames.movedim(0, 1)[None]
