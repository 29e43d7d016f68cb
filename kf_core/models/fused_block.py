"""One Wan block of the optimized forward: the numbers of `causal.Generator._block` for one segment, in fewer and cheaper operations.

Shift, scale and gate come ready; queries, keys and values are one product where their weights are plain ones, are normalised together and
turned together; keys and values go straight to their room in the stream's buffers; sums are made in place. Weights that are fused stay
where the module tree sees them: its three are views of the one.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from . import products
from .causal import cross_attend
from .protocol import Attention, AttentionModules, BlockModules


@dataclass(frozen=True, eq=False)
class KVSlot:
    """Where one layer's attention reads: remembered tokens first, then those of this pass. Views of the stream's buffers."""

    keys: Tensor  # [b, n, t, d], turned
    values: Tensor
    remembered: int  # tokens


class FusedBlock(nn.Module):
    """Runs a block of the module tree, which stays the owner of the weights."""

    def __init__(self, block: BlockModules, attention: Attention) -> None:
        super().__init__()
        self.block, self.attention = block, attention
        self.fused: Fused | None = None  # until a stream begins

    def forward(
        self,
        x: Tensor,  # [b, f, t, dim], changed in place
        modulation: Tensor,  # [b or 1, f or 1, 6, 1, dim]: shift, 1 + scale and gate, of the attention and of what follows it
        turn: Tensor,  # [f * t, 1, 1, d/2, 2] cosines and sines
        keys: Tensor,  # of a Room
        values: Tensor,
        remembered: int,
        words: tuple[Tensor, ...],  # keys and values of the prompt; or the one answer it has for every token
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens after this block, and the keys (before they were turned) and values it made of them: [b, n, t, d]."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.unbind(2)
        attention = self.block.self_attn
        hidden = torch.addcmul(shift_a, self.block.norm1(x), scale_a)
        queries_keys, v = self._projected(hidden.flatten(1, 2))
        q, k = turned(queries_keys, turn).transpose(1, 3).unbind(2)  # [b, n, t, d] each
        keys[:, :, remembered:].copy_(k)
        values[:, :, remembered:].copy_(v.transpose(1, 2))
        seen = self.attention(q.to(keys.dtype), keys, values)
        x.addcmul_(products.apply(attention.o, rearrange(seen, "b n (f t) d -> b f t (n d)", f=x.shape[1])), gate_a)

        x += words[0] if len(words) == 1 else cross_attend(self.attention, self.block, x, *words, products.apply)

        hidden = torch.addcmul(shift_f, self.block.norm2(x), scale_f)
        return x.addcmul_(feed_forward(self.block.ffn, hidden), gate_f), queries_keys[:, :, 1].transpose(1, 2), v.transpose(1, 2)

    def refresh(self) -> None:
        """Fuse what can be, and again where the module tree got other weights since."""
        if self.fused is None or not self.fused.is_of(self.block.self_attn):
            self.fused = Fused.of(self.block.self_attn)

    def _projected(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised queries and keys of tokens [b, t, dim], together: [b, t, 2, n, d], float32 or better; and values [b, t, n, d]."""
        own = self.block.self_attn
        if self.fused is not None:
            queries_keys, v = self.fused(hidden)
        else:
            queries_keys, v = torch.stack((own.norm_q(own.q(hidden)), own.norm_k(own.k(hidden))), dim=2), own.v(hidden)
        wide = queries_keys.to(torch.promote_types(queries_keys.dtype, torch.float32))
        return wide.unflatten(-1, (own.num_heads, -1)), v.unflatten(-1, (own.num_heads, -1))


class Fused(nn.Module):
    """Queries, keys and values as one product, and the norm of the first two as one."""

    def __init__(self, own: AttentionModules) -> None:
        super().__init__()
        self.weight, self.bias = (_joined([part.weight for part in self._parts(own)]), _joined([part.bias for part in self._parts(own)]))
        wide = torch.promote_types(own.norm_q.weight.dtype, torch.float32)
        self.register_buffer("norms", torch.stack((own.norm_q.weight, own.norm_k.weight)).detach().to(wide), persistent=False)  # [2, dim]
        self.eps = own.norm_q.eps
        self._seen = self._state(own)

    @classmethod
    def of(cls, own: AttentionModules) -> "Fused | None":
        """None where the modules are not PyTorch's own: a host's may patch, quantise or move their weights when they are called."""
        kinds = {type(part) for part in cls._parts(own)}
        are_plain = kinds == {nn.Linear} and all(part.bias is not None for part in cls._parts(own))
        return cls(own) if are_plain and all(type(norm) is nn.RMSNorm for norm in (own.norm_q, own.norm_k)) else None

    def is_of(self, own: AttentionModules) -> bool:
        return self._state(own) == self._seen

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """[b, t, dim] -> queries and keys [b, t, 2, dim], values [b, t, dim]."""
        projected = products.linear(hidden, self.weight, self.bias).unflatten(-1, (3, -1))
        wide = projected[:, :, :2].to(self.norms.dtype)
        return functional.rms_norm(wide, wide.shape[-1:], None, self.eps) * self.norms, projected[:, :, 2]

    @staticmethod
    def _parts(own: AttentionModules) -> tuple[nn.Module, nn.Module, nn.Module]:
        return own.q, own.k, own.v

    @classmethod
    def _state(cls, own: AttentionModules) -> tuple:
        tensors = [*(part.weight for part in cls._parts(own)), *(part.bias for part in cls._parts(own))]
        norms = (own.norm_q.weight, own.norm_k.weight)
        versions = ((t.data_ptr(), 0 if t.is_inference() else t._version) for t in norms)  # inference tensors count none
        return *(t.data_ptr() for t in tensors), *versions


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """`x` [b, t, 2, n, d] turned to where its tokens stand, by [t, 1, 1, d/2, 2]: pairs as complex numbers, one product each."""
    pairs = x.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling() or x.device.type == "mps":  # neither knows complex numbers well
        (even, odd), (cos, sin) = pairs.unbind(-1), turn.unbind(-1)
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn)).flatten(-2)


def feed_forward(ffn: nn.Module, hidden: Tensor) -> Tensor:
    if type(ffn) is nn.Sequential and getattr(ffn[1], "approximate", None) == "tanh":
        return products.apply(ffn[2], products.apply(ffn[0], hidden, then="gelu"))
    return ffn(hidden)


def _joined(parts: list[nn.Parameter]) -> nn.Parameter:
    """Weights one below the other. The parts become views of the whole, so they take no memory twice."""
    first = parts[0]
    ends = [part.storage_offset() + part.numel() for part in parts]
    share = all(part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() and part.is_contiguous() for part in parts)
    if share and [part.storage_offset() for part in parts[1:]] == ends[:-1]:  # they are already
        rows = sum(part.shape[0] for part in parts)
        whole = first.data.as_strided((rows, *first.shape[1:]), first.stride(), first.storage_offset())
    else:
        whole = torch.cat([part.data for part in parts])
        for part, view in zip(parts, whole.split([part.shape[0] for part in parts]), strict=True):
            part.data = view
    return nn.Parameter(whole, requires_grad=False)
