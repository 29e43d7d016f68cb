"""diffusers' names for Wan's VAE become Wan's own: a table of parts, and the numbering of the decoder's levels.

Wan's original file and ComfyUI's carry the same names, which are ours; diffusers' `AutoencoderKLWan` renamed them.
"""

from ..vae.wan import RES_BLOCKS

BLOCK = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2", "shortcut": "conv_shortcut"}
PARTS = {
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.0": "decoder.norm_out",
    "decoder.head.2": "decoder.conv_out",
    "encoder.middle.0": "encoder.mid_block.resnets.0",
    "encoder.middle.1": "encoder.mid_block.attentions.0",
    "encoder.middle.2": "encoder.mid_block.resnets.1",
    "decoder.middle.0": "decoder.mid_block.resnets.0",
    "decoder.middle.1": "decoder.mid_block.attentions.0",
    "decoder.middle.2": "decoder.mid_block.resnets.1",
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
}


def diffusers_name(name: str) -> str:
    """Wan's name of a VAE's tensor -> diffusers'."""
    part, rest = name, ""
    for ours, theirs in BLOCK.items():
        if f".{ours}." in name:
            part, rest = name.split(f".{ours}.")[0], f".{theirs}." + name.split(f".{ours}.")[1]
    if part.startswith("encoder.downsamples."):
        return part.replace("downsamples", "down_blocks") + rest
    if part.startswith("decoder.upsamples."):
        level, place = divmod(int(part.split(".")[2]), RES_BLOCKS + 2)
        inside = f"resnets.{place}" if place <= RES_BLOCKS else "upsamplers.0"
        return ".".join(["decoder.up_blocks", str(level), inside, *part.split(".")[3:]]) + rest
    key = next(key for key in sorted(PARTS, key=len, reverse=True) if part == key or part.startswith(key + "."))
    return PARTS[key] + part[len(key) :] + rest
