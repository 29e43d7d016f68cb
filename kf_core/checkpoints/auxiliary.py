"""What a file is that goes beside a generator: a VAE, a decoder alone or a tiny one, a text or audio encoder, a VACE module.

Told by names and shapes. Only names what it sees; loading is `vaes.py`'s, `umt5.py`'s and `vace.py`'s.
"""

from collections.abc import Mapping

from ..errors import KnotForcingError
from ..models.shapes import CONTEXT_CHANNELS
from ..vae.latents import Z_DIM
from .decoder_card import DecoderCard
from .header import TensorFacts
from .key_maps import wan_name
from .signatures import DIFFUSERS_KEY, ENCODER_KEY, LEVELS, TINY_KEY, VACE_KEY, WAN_KEY, space_of

SPACES = {"model": "decodes what the generator draws, as taew2_1", "raw": "decodes Wan's raw latents, as lighttaew2_1"}


def beside(tensors: Mapping[str, TensorFacts], file_name: str, metadata: Mapping[str, str] | None = None) -> str | None:
    """One line that says what the file is and where it is given; None for what is none of these. `metadata`: of its header."""
    named = {wan_name(name): facts for name, facts in tensors.items()}

    def shape(name):
        return named[name].shape if name in named else ()

    def first(name):
        return shape(name)[0] if shape(name) else 0

    if TINY_KEY in named:
        return _tiny(named, file_name)
    if WAN_KEY in named and ENCODER_KEY not in named:
        return _alone(first(WAN_KEY), metadata or {})
    for key, names in ((WAN_KEY, "Wan's own names"), (DIFFUSERS_KEY, "diffusers' names")):
        latents = first("conv2.weight") or first("post_quant_conv.weight")
        if key in named:
            other = "" if latents in (0, Z_DIM) else f", but of {latents} channels: it does not serve here"
            return f"a Wan VAE {first(key)} wide, in {names}{other} (--vae)"
    if shape(VACE_KEY)[1:2] == (CONTEXT_CHANNELS,):
        blocks = len({name.split(".")[1] for name in named if name.startswith("vace_blocks.")})
        return f"a VACE module {first(VACE_KEY)} wide, {blocks} blocks (--control-module)"
    if "token_embedding.weight" in named or ("shared.weight" in named and any("SelfAttention" in name for name in named)):
        inside = ", its tokenizer inside" if "spiece_model" in named else ""
        return f"a T5 text encoder {(shape('token_embedding.weight') or shape('shared.weight'))[-1]} wide{inside} (--text-encoder)"
    if any(name.endswith("feature_extractor.conv_layers.0.conv.weight") for name in named):
        return "a wav2vec 2.0 encoder; the command line takes its folder (--audio-encoder)"
    return None


def _alone(width: int, metadata: Mapping[str, str]) -> str:
    try:
        card = DecoderCard.of(metadata)
    except KnotForcingError as problem:
        return str(problem)
    if card is None or not card.encoder:
        return f"a decoder alone {width} wide, of a Wan VAE; it does not say of which, so it is not used"
    reached = f"{card.psnr:.1f} dB on held-out clips, {card.psnr_mouth:.1f} dB at the mouth, {card.steps:,} steps"
    return f"a decoder alone {width} wide, for the latents of one VAE: {reached} (--decoder)"


def _tiny(named: Mapping[str, TensorFacts], file_name: str) -> str:
    level = named.get(LEVELS[0])
    if level is None or level.shape[1:2] != (Z_DIM,):
        return f"a tiny decoder of another model than Wan 2.1 ({level.shape[1] if level else 'unknown'} channels)"
    try:
        return f"a tiny decoder: {SPACES[space_of(file_name, is_half=level.dtype == 'F16')]} (--decoder)"
    except KnotForcingError as problem:
        return str(problem)
