"""What tells the files beside a generator apart: names that only they have. Of two tiny decoders, only the name of the file tells."""

from ..errors import KnotForcingError
from ..vae.latents import Space

WAN_KEY, DIFFUSERS_KEY = "decoder.head.0.gamma", "decoder.norm_out.gamma"  # of a Wan VAE, in Wan's own names and in diffusers'
ENCODER_KEY = "encoder.conv1.weight"  # of a Wan VAE in Wan's names; a decoder alone lacks it
TINY_KEY = "decoder.22.bias"
LEVELS = tuple(f"decoder.{place}.weight" for place in (1, 8, 14, 20))  # the convolution into each level of a tiny decoder
OTHER_TINY = ("taehv", "taecvx", "taeos")  # tiny decoders of 16 channels that are not for Wan
VACE_KEY = "vace_patch_embedding.weight"


def space_of(name: str, *, is_half: bool) -> Space:
    """Which latents the tiny decoder in file `name` wants. By its name; else taew2_1 was published in float16, lighttaew2_1 in float32.

    Raises KnotForcingError for the tiny decoders of other models, which look just the same and would give wrong colours."""
    low = name.lower()
    if any(other in low for other in OTHER_TINY):
        raise KnotForcingError(
            f"{name} is a tiny decoder of another model than Wan 2.1. Use taew2_1.safetensors or lighttaew2_1.safetensors."
        )
    if "lighttae" in low:
        return "raw"
    return "model" if "taew2_1" in low or is_half else "raw"
