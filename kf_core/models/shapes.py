"""The tensors of a generator by name and shape, told by its card alone: what a file must hold, before any network is made.

`wan.py` and `adapters.py` are these tensors as networks, and a test says that both agree. It stands apart because a file is judged by
its header, which takes no PyTorch: `inspect` answers while PyTorch would still be loading.
Source: Wan 2.1's published names; the audio part's are LiveTalk's.
"""

from itertools import pairwise

from ..timeline import PIXELS_PER_LATENT
from .card import ModelCard

PATCH = (1, 2, 2)  # latent cells to a token: in time, down, across
MOTION_FREQUENCIES = 32
CONTEXT_CHANNELS = 16 + 16 + 64  # of a VACE module: what is kept, the control, and a mask of a latent cell's 8 x 8 pixels

Shapes = dict[str, tuple[int, ...]]


def shapes_of(card: ModelCard) -> Shapes:
    """The tensors that a generator with this card has, adapters included."""
    return {**_backbone(card), **_adapters(card)}


def _backbone(card: ModelCard) -> Shapes:
    dim, cells = card.dim, PATCH[1] * PATCH[2]
    attention = {f"{part}.{name}": shape for part in "qkvo" for name, shape in _linear(dim, dim).items()}
    attention |= {"norm_q.weight": (dim,), "norm_k.weight": (dim,)}
    block = {"modulation": (1, 6, dim), **_under("norm3", _norm(dim))}
    block |= _under("self_attn", attention) | _under("cross_attn", attention)
    block |= _under("ffn.0", _linear(dim, card.ffn_dim)) | _under("ffn.2", _linear(card.ffn_dim, dim))
    shapes = {"patch_embedding.weight": (dim, card.in_channels, *PATCH), "patch_embedding.bias": (dim,)}
    shapes |= _two_layers("text_embedding", card.text.width, dim) | _two_layers("time_embedding", card.freq_dim, dim)
    shapes |= _under("time_projection.1", _linear(dim, 6 * dim))
    for index in range(card.layers):
        shapes |= _under(f"blocks.{index}", block)
    return shapes | {"head.modulation": (1, 2, dim)} | _under("head.head", _linear(dim, cells * card.out_channels))


def _adapters(card: ModelCard) -> Shapes:
    shapes: Shapes = {}
    if card.audio is not None:
        for index, widths in enumerate(pairwise((card.audio.width, *card.audio.ear))):
            shapes |= _under(f"audio_proj.ear.{2 * index}", _linear(*widths))
        shapes |= _under("audio_proj.proj", _linear(PIXELS_PER_LATENT * card.audio.features_width, card.audio.code))
        shapes |= _under("audio_proj.norm_out", _norm(card.audio.code))
        for index in range(card.audio.last_layer - card.audio.first_layer + 1):
            shapes |= _under(f"audio_cond_projs.{index}", _linear(card.audio.code, card.dim))
    if card.pose is not None:
        shapes |= _two_layers("pose_embedding", PATCH[1] * PATCH[2] * PIXELS_PER_LATENT * card.pose.channels, card.dim)
    if card.expression:
        shapes |= _two_layers("expression_embedding", PIXELS_PER_LATENT * 2 * len(card.expression), card.dim)
    if card.motion_strength:
        shapes |= _two_layers("motion_embedding", MOTION_FREQUENCIES, card.dim)
    return shapes


def _linear(inward: int, outward: int) -> Shapes:
    return {"weight": (outward, inward), "bias": (outward,)}


def _norm(width: int) -> Shapes:
    return {"weight": (width,), "bias": (width,)}


def _two_layers(name: str, inward: int, dim: int) -> Shapes:
    return _under(f"{name}.0", _linear(inward, dim)) | _under(f"{name}.2", _linear(dim, dim))


def _under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}
