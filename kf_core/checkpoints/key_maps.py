"""Other people's names become Wan's: containers, wrappers and prefixes, in one order, as tables.

    generator_ema . model._fsdp_wrapped_module. base_model.model. blocks.0.self_attn.q .base_layer .weight
    entry           wrappers and prefixes      PEFT's own         Wan's name           PEFT's own

What belongs to one weight (its scale where it is fp8, its LoRA where that was not merged) is gathered as `Parts`.
Source: the published loaders of Self-Forcing, Causal-Forcing, LongLive, AvatarForcing and ComfyUI; PEFT's names of tensors.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

ENTRIES = ("generator_ema", "generator", "model", "state_dict")  # where a training checkpoint keeps the generator, best first
WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")  # anywhere in a name
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.")  # in front of every name
PEFT = ("base_model.model.", "model.")  # in front of what is left; some save a model inside a model
LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B|down|up)(\.default)?\.weight$")
SCALES = (".scale_weight", ".weight_scale")  # of an fp8 weight; the second is the newer name
NOT_NEEDED = (".scale_input", ".input_scale", ".comfy_quant")  # for kernels that multiply in fp8
MARKER = "scaled_fp8"


def wan_name(name: str) -> str:
    """A tensor's name without the wrappers and prefixes of whoever saved it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    for prefix in PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    if name.startswith(PEFT[0]):
        name = name.removeprefix(PEFT[0]).removeprefix(PEFT[1])
    return name


@dataclass(frozen=True)
class LoraParts:
    """A correction of low rank, by the names of its tensors in a file: weight + alpha / rank * up @ down."""

    down: str = ""  # [rank, in]
    up: str = ""  # [out, rank]
    alpha: str = ""  # of this one; where there is none, the model's own holds, or the rank

    @property
    def is_whole(self) -> bool:
        return bool(self.down and self.up)


@dataclass(frozen=True)
class Parts:
    """The tensors of a file, by their names there, that one of Wan's tensors is made from."""

    stored: str = ""
    scale: str = ""
    lora: LoraParts | None = None


def gathered(names: Iterable[str]) -> tuple[dict[str, Parts], list[str]]:
    """What each of Wan's tensors is made from, and the names that two tensors claim. What belongs to nothing is a tensor of its own."""
    parts: dict[str, Parts] = {}
    twice, alphas = [], {}
    for stored in names:
        name = wan_name(stored).replace(".base_layer.", ".")
        if found := LORA.match(name):
            weight = found["module"] + ".weight"
            lora = parts.get(weight, Parts()).lora or LoraParts()
            side = "down" if found["side"] in ("A", "down") else "up"
            twice += [stored] if getattr(lora, side) else []
            parts[weight] = replace(parts.get(weight, Parts()), lora=replace(lora, **{side: stored}))
        elif name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha") + ".weight"] = stored
        elif scale := next((s for s in SCALES if name.endswith(s)), None):
            weight = name.removesuffix(scale) + ".weight"
            twice += [stored] if parts.get(weight, Parts()).scale else []
            parts[weight] = replace(parts.get(weight, Parts()), scale=stored)
        elif name != MARKER and not name.endswith(NOT_NEEDED):
            twice += [stored] if parts.get(name, Parts()).stored else []
            parts[name] = replace(parts.get(name, Parts()), stored=stored)
    for weight, stored in alphas.items():
        if weight in parts and parts[weight].lora is not None:
            parts[weight] = replace(parts[weight], lora=replace(parts[weight].lora, alpha=stored))
        else:
            parts[weight.removesuffix(".weight") + ".alpha"] = Parts(stored=stored)
    return parts, twice
