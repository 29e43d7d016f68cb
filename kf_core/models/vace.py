"""The VACE module: control frames (pose, depth, edges, ...) steer a Wan backbone by hints after some of its layers.

A branch of blocks like the backbone's own runs beside it on the control's latents, and after every tapped layer one of them adds its
hint, times a strength. On a causal backbone the branch sees the frames of its own pass and remembers nothing: no cache grows, and a chunk
depends on its own control alone. Its positions continue from chunk to chunk.

    context, 96 channels: 16 grey latents (nothing is kept), 16 control latents, 64 of mask, all ones (everything is to be denoised)
    c = before_proj(patches(context)) + x;   c = block_n(c);   x after layer taps[n]  +=  strength * after_proj_n(c)

How the branch flows is said in `causal.py`, which runs its blocks as it runs the backbone's.
Source: VACE (arXiv 2503.07598); ComfyUI, comfy/ldm/wan/model.py `VaceWanModel`, comfy_extras/nodes_wan.py `WanVaceToVideo` (the context).
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import KnotForcingError
from .shapes import CONTEXT_CHANNELS, PATCH
from .wan import WanBlock


class Vace(nn.Module):
    """The weights of one module, under the names of its file."""

    def __init__(self, *, dim: int, ffn_dim: int, heads: int, blocks: int, layers=nn) -> None:
        super().__init__()
        self.vace_patch_embedding = layers.Conv3d(CONTEXT_CHANNELS, dim, kernel_size=PATCH, stride=PATCH)
        self.vace_blocks = nn.ModuleList(VaceBlock(dim, ffn_dim, heads, layers, is_first=index == 0) for index in range(blocks))

    def injection_layers(self, backbone_layers: int) -> tuple[int, ...]:
        """The layers of a backbone that a hint follows, evenly spread: 0, 2, ..., 28 of 30. Raises KnotForcingError for too short a one."""
        blocks = len(self.vace_blocks)
        if blocks > backbone_layers:
            raise KnotForcingError(
                f"The VACE module has {blocks} blocks and the generator only {backbone_layers} layers. Use the module made for it."
            )
        return tuple(range(0, backbone_layers, backbone_layers // blocks))[:blocks]

    def embed(self, control: Tensor) -> Tensor:
        """Grey and control latents [b, f, 32, h, w] in model space -> tokens [b, f, t, dim]."""
        b, f, _, h, w = control.shape
        mask = control.new_ones(b, f, CONTEXT_CHANNELS - control.shape[2], h, w)
        context = rearrange(torch.cat((control, mask), dim=2), "b f c h w -> b c f h w")
        return rearrange(self.vace_patch_embedding(context), "b d f h w -> b f (h w) d")


class VaceBlock(WanBlock):
    def __init__(self, dim: int, ffn_dim: int, heads: int, layers=nn, *, is_first: bool) -> None:
        super().__init__(dim, ffn_dim, heads, layers)
        if is_first:
            self.before_proj = layers.Linear(dim, dim)
        self.after_proj = layers.Linear(dim, dim)
