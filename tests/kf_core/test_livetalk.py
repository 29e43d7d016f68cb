"""LiveTalk from portrait, voice and prompt to video, on the command line: every file in its own layout, small and random.

What each leg must equal is recorded (`tests/reference`): voice -> features, and features -> latents. Here the legs are joined, and what
the command draws is drawn again from features, prompt and portrait made the published way.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from kf_core.checkpoints.known_models import livetalk
from kf_core.checkpoints.load import load_generator
from kf_core.checkpoints.vaes import load_vae
from kf_core.cli.main import main
from kf_core.conditioning.anchor import Anchor
from kf_core.conditioning.portrait import livetalk_portrait
from kf_core.media.image import read_image
from kf_core.media.playback import frames, probe
from kf_core.models.adapters import Adapters
from kf_core.models.card import AudioSpec, TextSpec
from kf_core.models.wan import WanModel
from kf_core.sampling.noise import SeededNoise
from kf_core.sampling.rollout import rollout
from kf_core.session.latent_log import LatentLog
from kf_core.timeline import LatentSpan
from kf_core.types import ChunkConditioning, LatentChunk, Signal, TextContext
from kf_core.vae.streaming import encode_clip
from kf_core.vae.wan import WanVAE

transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

SECONDS, FPS, SIZE = 2.0, 16, (48, 64)  # width and height
PROMPT = "a person speaks to the camera"
HEARD, READ = 768, 24  # widths of the encoders
AUDIO = AudioSpec(kind="wav2vec2", width=3 * HEARD, code=8, first_layer=2, last_layer=3)
CARD = replace(livetalk(), dim=128, ffn_dim=160, layers=6, heads=1, text=TextSpec(kind="umt5", width=READ), audio=AUDIO)


@dataclass(frozen=True)
class Files:
    """What a user has downloaded, and what they bring."""

    folder: Path

    def animate(self, out: str, **changed) -> int:
        given = {name: self.folder / file for name, file in FILES.items()} | {"out": self.folder / out, "prompt": PROMPT}
        given |= {"known_as": "livetalk", "precision": "fp32", "accept_licence": True, "quiet": True}
        given |= {"width": SIZE[0], "height": SIZE[1]} | changed
        words = ["animate"]
        for name, value in given.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return main(words)

    def latents(self, spool: Path) -> torch.Tensor:
        """What a command drew, all chunks: [1, 16, f, h, w]."""
        (file,) = spool.iterdir()
        kept = LatentLog(spool, file.stem)
        return torch.cat([kept.read(index).latents for index in range(len(kept))], dim=2)


FILES = {"checkpoint": "model.safetensors", "vae": "Wan2.1_VAE.pth", "text_encoder": "umt5", "audio_encoder": "wav2vec2-base-960h"}
FILES |= {"portrait": "portrait.png", "audio": "voice.wav"}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("livetalk")
    torch.manual_seed(0)
    networks = WanModel(CARD), Adapters(CARD)
    for network in networks:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.1)
    save_file({name: t for network in networks for name, t in network.state_dict().items()}, folder / FILES["checkpoint"])
    torch.save(WanVAE(4).state_dict(), folder / FILES["vae"])
    hearing = transformers.Wav2Vec2Config(
        hidden_size=HEARD, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=16,
    )  # fmt: skip
    transformers.Wav2Vec2Model(hearing).save_pretrained(folder / FILES["audio_encoder"])
    pieces = io.BytesIO()
    sentences = iter([PROMPT, "smiles and looks away, waving", PROMPT.upper()])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=pieces, vocab_size=60, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1
    )
    reading = transformers.UMT5Config(vocab_size=64, d_model=READ, d_kv=8, num_heads=2, d_ff=16, num_layers=2)
    transformers.UMT5EncoderModel(reading).save_pretrained(folder / FILES["text_encoder"])
    (folder / FILES["text_encoder"] / "spiece.model").write_bytes(pieces.getvalue())
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (90, 70, 3), np.uint8)).save(folder / FILES["portrait"])
    write_voice(folder / FILES["audio"], SECONDS)
    return Files(folder)


def write_voice(path: Path, seconds: float, pitch: float = 170) -> None:
    import wave

    t = np.arange(round(seconds * 16000)) / 16000
    sound = 0.3 * np.sin(2 * np.pi * pitch * t) * (1 + np.sin(9 * t)) / 2 + 0.01 * np.random.default_rng(2).standard_normal(len(t))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


# ---- the published way, step by step ----


@torch.no_grad()
def published_features(files: Files, frames: int) -> torch.Tensor:
    """Voice -> [1, 4 * frames, width], three copies of the first step in front. Order of steps: the recording `lt_audio`."""
    import soundfile

    encoder = transformers.Wav2Vec2Model.from_pretrained(files.folder / FILES["audio_encoder"]).eval()
    wave, _ = soundfile.read(files.folder / FILES["audio"], dtype="float32")
    wave = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))[None]
    heard = encoder.feature_extractor(wave)
    hidden, _ = encoder.feature_projection(interpolate(heard, size=4 * frames - 3, mode="linear", align_corners=True).transpose(1, 2))
    states: list[torch.Tensor] = []
    for layer in encoder.encoder.layers:  # hidden states 0 .. layers - 1 are what the layers are given, the last is what comes out
        layer.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    last = encoder.encoder(hidden).last_hidden_state
    steps = torch.cat((last, *states, last), dim=-1)
    return torch.cat((steps[:, :1].expand(-1, 3, -1), steps), dim=1)


@torch.no_grad()
def published_prompt(files: Files) -> torch.Tensor:
    """Prompt -> [1, 512, width]: padded to 512, attended with a mask, zero after its own tokens."""
    folder = files.folder / FILES["text_encoder"]
    ids = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model")).encode(PROMPT) + [1]
    encoder = transformers.UMT5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    padded, mask = torch.zeros(1, 512, dtype=torch.long), torch.zeros(1, 512, dtype=torch.long)
    padded[0, : len(ids)], mask[0, : len(ids)] = torch.tensor(ids), 1
    states = encoder(input_ids=padded, attention_mask=mask).last_hidden_state
    return states * mask[:, :, None]


class Published:
    """Features and prompt as whole tensors, cut to the frames that are asked for."""

    def __init__(self, features: torch.Tensor, prompt: torch.Tensor) -> None:
        self.features, self.text = features, TextContext(prompt)

    def window(self, span: LatentSpan) -> ChunkConditioning:
        heard = self.features[:, 4 * span.start : 4 * span.stop].unflatten(1, (span.length, 4)).flatten(2)
        return ChunkConditioning(span=span, text=self.text, audio=Signal(heard))


# ---- what must hold ----


def test_a_portrait_a_voice_and_a_prompt_become_a_video_that_all_of_them_decide(files, tmp_path):
    assert files.animate("plain.mp4") == 0
    facts = probe(files.folder / "plain.mp4")
    assert (facts.frames, facts.width, facts.height, facts.fps) == (32, *SIZE, FPS) and abs(facts.sound_seconds - SECONDS) < 0.01
    write_voice(tmp_path / "other.wav", SECONDS, pitch=320)
    plain = torch.stack(list(frames(files.folder / "plain.mp4")))
    for name, changed in {"prompt": {"prompt": "smiles"}, "voice": {"audio": tmp_path / "other.wav"}, "seed": {"seed": 1}}.items():
        assert files.animate(f"{name}.mp4", **changed) == 0
        assert not torch.equal(torch.stack(list(frames(files.folder / f"{name}.mp4"))), plain), name


def test_what_the_command_draws_equals_the_published_way_joined_by_hand(files, tmp_path):
    assert files.animate("joined.mp4", spool=tmp_path) == 0
    drawn = files.latents(tmp_path)
    model = load_generator(files.folder / FILES["checkpoint"], known_as="livetalk", accept_licence=True, dtype=torch.float32)
    assert model.card.rollout == livetalk().rollout  # pinned 9, window 6, t as bf16 rounds it, frame 0 pinned
    portrait = livetalk_portrait(read_image(files.folder / FILES["portrait"]), *SIZE)
    anchor = Anchor(encode_clip(load_vae(files.folder / FILES["vae"], dtype=torch.float32), portrait))
    driving = Published(published_features(files, drawn.shape[2]), published_prompt(files))
    noise = SeededNoise(0, (1, 16, SIZE[1] // 8, SIZE[0] // 8))
    chunks = []
    for item in rollout(model, anchor, driving, model.card.rollout, noise):
        if isinstance(item, LatentChunk):
            chunks.append(item.latents)
            if sum(chunk.shape[2] for chunk in chunks) >= drawn.shape[2]:
                break
    expected = torch.cat(chunks, dim=2)
    assert torch.allclose(drawn[:, :, :1], anchor.latent, atol=1e-6)  # the first frame is the portrait itself
    error = (drawn - expected).norm() / expected.norm()
    assert error < 1e-5
    print(f"relative error {error:.1e}")


def test_guidance_leads_away_from_the_negative_prompt_and_says_what_it_costs(files, tmp_path, capsys):
    latents = {}
    for name, changed in {
        "plain": {},
        "off": {"guidance": 1},
        "guided": {"guidance": 3, "negative_prompt": "waving"},
        "elsewhere": {"guidance": 3, "negative_prompt": "looks away"},
        "nowhere": {"guidance": 3, "negative_prompt": PROMPT},
    }.items():
        assert files.animate(f"{name}.mp4", spool=tmp_path / name, overwrite=True, **changed) == 0
        latents[name] = files.latents(tmp_path / name)
        assert ("takes twice as long" in capsys.readouterr().err) == ("guidance" in changed and changed["guidance"] > 1)
    assert torch.equal(latents["plain"], latents["off"])
    assert [*(tmp_path / "plain").iterdir()][0].name == [*(tmp_path / "off").iterdir()][0].name
    torch.testing.assert_close(latents["nowhere"], latents["plain"], rtol=0, atol=1e-4)
    assert not torch.allclose(latents["guided"], latents["elsewhere"]) and not torch.allclose(latents["guided"], latents["plain"])


def test_guidance_without_a_reader_is_refused_before_anything_is_loaded(files, capsys):
    assert files.animate("never.mp4", guidance=3, text_encoder=None) == 1
    assert "no text encoder is loaded that reads them" in capsys.readouterr().err and not (files.folder / "never.mp4").exists()


def test_one_word_puts_it_under_knot_forcing(files, tmp_path):
    assert files.animate("knot.mp4", method="knot-forcing", spool=tmp_path) == 0 and probe(files.folder / "knot.mp4").frames == 32
    own, knotted = tmp_path.with_name("own"), files.latents(tmp_path)
    assert files.animate("own.mp4", spool=own) == 0
    assert torch.allclose(knotted[:, :, :1], files.latents(own)[:, :, :1])  # frame 0 is pinned under both
    assert not torch.allclose(knotted[:, :, 1:3], files.latents(own)[:, :, 1:3])
