"""A generator's weights in the forms in which people keep them: fp8, scaled fp8, GGUF. Small random ones in the real layout.

Sources: ComfyUI, `comfy/utils.py` `convert_old_quants` (scaled fp8); ComfyUI-GGUF, `tools/convert.py` (which tensors stay in float32).
"""

from pathlib import Path

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
KEPT_PRECISE = 1024  # values: tensors as small as these are not quantised in a GGUF file


def is_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.dim() == 2 and name.endswith(".weight")


def as_fp8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in eight bits as they are, the rest untouched."""
    return {name: tensor.to(FP8) if is_matrix(name, tensor) else tensor for name, tensor in tensors.items()}


def as_scaled_fp8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in eight bits with a scale each, beside the mark that says so."""
    scaled = {"scaled_fp8": torch.empty(0, dtype=FP8)}
    for name, tensor in tensors.items():
        scaled[name] = tensor
        if is_matrix(name, tensor):
            scale = tensor.float().abs().max() / LARGEST
            scaled[name] = (tensor.float() / scale).to(FP8)
            scaled[name.removesuffix("weight") + "scale_weight"] = scale.float()
    return scaled


def plain(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What weights of either kind stand for."""
    values = {}
    for name, tensor in tensors.items():
        if name == "scaled_fp8" or name.endswith(".scale_weight"):
            continue
        scale = tensors.get(name.removesuffix("weight") + "scale_weight") if name.endswith(".weight") else None
        values[name] = (tensor.float() if scale is None else tensor.float() * scale).to(dtype)
    return values


def write_gguf(tensors: dict[str, Tensor], path: Path) -> None:
    """A file as ComfyUI-GGUF's converter makes them: matrices in Q8_0, small tensors and those of five axes in float32."""
    import gguf

    writer = gguf.GGUFWriter(path=None, arch="wan")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for name, tensor in tensors.items():
        is_packed = tensor.dim() == 2 and tensor.numel() > KEPT_PRECISE
        kind = gguf.GGMLQuantizationType.Q8_0 if is_packed else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file(path=path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
