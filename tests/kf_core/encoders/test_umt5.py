"""What models that read are given, on a tiny random UMT5 and a small tokenizer made here."""

import inspect
import io
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints.umt5 import WANS_NAMES, precision_word, read_umt5
from kf_core.encoders.umt5 import MOST_AHEAD, TOKENS, UMT5, EncodedPrompts, cleaned, encoded_ahead
from kf_core.errors import KnotForcingError

transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

WIDTH = 24
WORDS = "a woman speaks to the camera and smiles, then she looks away; soft light falls on her face"


@pytest.fixture(scope="module")
def spiece() -> bytes:
    made = io.BytesIO()
    sentences = iter([WORDS, WORDS.upper(), WORDS[::-1]])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=made, vocab_size=60, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1
    )
    return made.getvalue()


@pytest.fixture(scope="module")
def network(spiece):
    torch.manual_seed(0)
    size = sentencepiece.SentencePieceProcessor(model_proto=spiece).get_piece_size()
    config = transformers.UMT5Config(vocab_size=size, d_model=WIDTH, d_kv=8, num_heads=3, d_ff=40, num_layers=2)
    model = transformers.UMT5EncoderModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model


@pytest.fixture
def folder(network, spiece, tmp_path) -> Path:
    """As Hugging Face lays it out: weights and tokenizer in folders side by side."""
    network.save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(spiece)
    return tmp_path


def encoder(path: Path) -> UMT5:
    return UMT5(*read_umt5(path, dtype=torch.float32))


def test_a_prompt_is_read_by_the_network_and_zero_after_its_own_length(folder, network, spiece):
    ids = sentencepiece.SentencePieceProcessor(model_proto=spiece).encode(WORDS) + [1]
    masked = torch.zeros(1, TOKENS, dtype=torch.long)  # Wan's own way: padded to 512, with a mask
    masked[0, : len(ids)] = torch.tensor(ids)
    theirs = network(input_ids=masked, attention_mask=(torch.arange(TOKENS) < len(ids))[None].long()).last_hidden_state
    embedding = encoder(folder)(WORDS)
    assert embedding.shape == (1, TOKENS, WIDTH) and embedding[:, len(ids) :].abs().max() == 0
    assert embedding[0, : len(ids)].std() > 0.1
    assert (embedding[:, : len(ids)] - theirs[:, : len(ids)]).abs().max() < 1e-5


def test_every_layout_gives_the_same_embedding(folder, network, spiece):
    expected = encoder(folder)(WORDS)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items() if name != "encoder.embed_tokens.weight"}
    comfy = folder / "umt5_xxl_fp32.safetensors"
    save_file({**weights, "spiece_model": torch.frombuffer(bytearray(spiece), dtype=torch.uint8)}, comfy)
    assert torch.equal(encoder(comfy)(WORDS), expected)

    theirs = {"shared.weight": "token_embedding.weight", "encoder.final_layer_norm.weight": "norm.weight"}
    for layer in range(2):
        theirs |= {f"encoder.block.{layer}.{hf}.weight": f"blocks.{layer}.{wan}.weight" for wan, hf in WANS_NAMES.items()}
    home = folder / "Wan2.1-T2V-1.3B"
    (home / "google" / "umt5-xxl").mkdir(parents=True)
    shutil.copy(folder / "tokenizer" / "spiece.model", home / "google" / "umt5-xxl")
    torch.save({theirs[name]: tensor for name, tensor in weights.items()}, home / "models_t5_umt5-xxl-enc-bf16.pth")
    assert torch.equal(encoder(home / "models_t5_umt5-xxl-enc-bf16.pth")(WORDS), expected)

    scaled = {name: tensor for name, tensor in weights.items()}
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    scaled[name] = (weights[name] / 0.01).to(torch.float8_e4m3fn)
    scaled |= {name.replace(".weight", ".scale_weight"): torch.tensor(0.01), "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    save_file({**scaled, "spiece_model": torch.frombuffer(bytearray(spiece), dtype=torch.uint8)}, folder / "fp8.safetensors")
    assert 0 < (encoder(folder / "fp8.safetensors")(WORDS) - expected).norm() < 0.25 * expected.norm()


def test_any_of_several_files_stands_for_all(folder, network):
    """As transformers saves what is large, and diffusers publishes it."""
    expected, home = encoder(folder)(WORDS), folder / "sharded" / "text_encoder"
    (folder / "tokenizer").rename(folder / "sharded-tokenizer")
    network.save_pretrained(home, max_shard_size="12KB")
    (folder / "sharded-tokenizer").rename(folder / "sharded" / "tokenizer")
    shards = sorted(home.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    for path in (home, shards[0], shards[-1], home / "model.safetensors.index.json"):
        assert torch.equal(encoder(path)(WORDS), expected)
    shards[0].unlink()
    with pytest.raises(KnotForcingError, match=f"{shards[0].name} is not beside it"):
        encoder(shards[1])


def test_a_tokenizer_of_the_other_kind_gives_the_same_ids(folder, spiece):
    processor = sentencepiece.SentencePieceProcessor(model_proto=spiece)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    expected = encoder(folder)(WORDS)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "spiece.model").unlink()
    assert torch.allclose(encoder(folder)(WORDS), expected, atol=1e-6)


def test_the_longest_prompt_keeps_its_end_mark(folder):
    read = encoder(folder)
    assert read(WORDS * 60).shape == (1, TOKENS, WIDTH) and read(WORDS * 60)[0, -1].abs().max() > 0
    assert read("").count_nonzero(dim=2).nonzero().shape[0] == 1  # an empty prompt is its end mark alone


def test_spaces_and_entities_are_cleaned():
    assert cleaned("  a &amp;amp; b\n\t c ") == "a & b c"


def test_prompts_encoded_ahead_are_the_encoders_own_and_let_it_go(folder):
    read = encoder(folder)
    ahead = encoded_ahead(read, ["", WORDS, WORDS])
    assert isinstance(ahead, EncodedPrompts) and list(ahead.embeddings) == ["", WORDS]
    assert torch.equal(ahead(WORDS), read(WORDS)) and ahead.content_id == read.content_id
    with pytest.raises(ValueError, match="'else' was not encoded ahead; 2 others"):
        ahead("else")
    assert encoded_ahead(read, [str(number) for number in range(MOST_AHEAD + 1)]) is read


def test_what_is_missing_is_said_in_words(folder, network, spiece, tmp_path):
    with pytest.raises(KnotForcingError, match="does not exist.*Download"):
        read_umt5(tmp_path / "nowhere")
    with pytest.raises(KnotForcingError, match="no config.json was found"):
        read_umt5(tmp_path / "tokenizer")
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items() if name != "encoder.embed_tokens.weight"}
    (tmp_path / "far" / "away").mkdir(parents=True)
    save_file(weights, tmp_path / "far" / "away" / "umt5.safetensors")
    with pytest.raises(KnotForcingError, match="has no tokenizer"):
        read_umt5(tmp_path / "far" / "away" / "umt5.safetensors")
    save_file({"shared.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(KnotForcingError, match="other.safetensors is no UMT5 text encoder"):
        read_umt5(tmp_path / "other.safetensors")
    weights.pop("encoder.block.1.layer.1.DenseReluDense.wo.weight")
    save_file({**weights, "spiece_model": torch.frombuffer(bytearray(spiece), dtype=torch.uint8)}, tmp_path / "cut.safetensors")
    with pytest.raises(KnotForcingError, match="does not fit UMT5: missing .*wo.weight"):
        read_umt5(tmp_path / "cut.safetensors")
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"nothing")
    with pytest.raises(KnotForcingError, match="tokenizer cannot be read"):
        read_umt5(folder)


@pytest.mark.parametrize(
    "version, word", [("4.51.3", "torch_dtype"), ("4.55.4", "torch_dtype"), ("4.56.0", "dtype"), ("5.0.0rc1", "dtype")]
)
def test_each_transformers_is_told_the_precision_in_its_own_word(version, word):
    assert precision_word(version, torch.bfloat16) == {word: torch.bfloat16}


def test_the_transformers_that_is_here_reads_that_word():
    """`from_pretrained` takes whatever word comes; the one it looks for is in its code."""
    (word,) = precision_word(transformers.__version__, torch.bfloat16)
    assert f'"{word}"' in inspect.getsource(transformers.PreTrainedModel.from_pretrained)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_folder_is_read_in_the_precision_that_is_asked_for(folder, dtype):
    model, _ = read_umt5(folder, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
