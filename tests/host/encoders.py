"""Small random encoders in the layout of the real ones: wav2vec2-base-960h's file, and UMT5 as the host builds it, with its tokenizer.

wav2vec 2.0 has its full size, because the host knows no other; UMT5-XXL has its width, but two narrow layers, and few words.
"""

import io
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = "a man smiles and looks at the camera while he speaks slowly".split()
NARROW = {"d_ff": 8, "d_kv": 4, "num_heads": 2, "num_layers": 2, "vocab_size": 40}  # the rest is UMT5-XXL's


def write_wav2vec2(path: Path):
    """A random encoder under the names of Hugging Face's file; gives transformers' own network with the same weights."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(2)
    network = Wav2Vec2Model(Wav2Vec2Config()).eval().half().float()  # values that half precision keeps, as the host does
    tensors = {"lm_head.weight": torch.randn(32, 768), "lm_head.bias": torch.randn(32)}
    for name, tensor in network.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v")
        tensors[f"wav2vec2.{name}"] = tensor.half().contiguous()
    save_file(tensors, path)
    return network


def umt5_tensors() -> dict[str, Tensor]:
    """A narrow UMT5-XXL under the names of the host's file, its tokenizer beside the weights."""
    width, inner = 4096, NARROW["d_kv"] * NARROW["num_heads"]
    torch.manual_seed(3)
    tensors = {"shared.weight": torch.randn(NARROW["vocab_size"], width), "encoder.final_layer_norm.weight": torch.ones(width)}
    # by the shape of this one the host knows that it is a UMT5-XXL
    tensors["encoder.block.23.layer.1.DenseReluDense.wi_1.weight"] = torch.zeros(10240, 1)
    for layer in range(NARROW["num_layers"]):
        attention, forward = (f"encoder.block.{layer}.layer.{part}" for part in (0, 1))
        for name in "qkv":
            tensors[f"{attention}.SelfAttention.{name}.weight"] = torch.randn(inner, width) / 64
        tensors[f"{attention}.SelfAttention.o.weight"] = torch.randn(width, inner)
        tensors[f"{attention}.SelfAttention.relative_attention_bias.weight"] = torch.randn(32, NARROW["num_heads"])
        for name in ("wi_0", "wi_1"):
            tensors[f"{forward}.DenseReluDense.{name}.weight"] = torch.randn(NARROW["d_ff"], width) / 64
        tensors[f"{forward}.DenseReluDense.wo.weight"] = torch.randn(width, NARROW["d_ff"])
        for part in (attention, forward):
            tensors[f"{part}.layer_norm.weight"] = torch.ones(width)
    return tensors | {"spiece_model": torch.frombuffer(bytearray(_tokenizer()), dtype=torch.uint8)}


def _tokenizer() -> bytes:
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 20),
        model_writer=made,
        vocab_size=NARROW["vocab_size"],
        model_type="char",
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return made.getvalue()
