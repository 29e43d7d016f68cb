"""Models that hear and read through the host: a generator of LiveTalk's shape with the host's own wav2vec 2.0 and UMT5."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from kf_core.checkpoints import known_models as known
from kf_core.encoders import wav2vec2
from kf_core.models.adapters import Adapters
from kf_core.models.card import CARD_KEY
from kf_core.models.wan import WanModel

from .conftest import SIZE, also, talking
from .encoders import NARROW, umt5_tensors, write_wav2vec2

LIVETALK = replace(known.livetalk(), name="small LiveTalk", dim=128, ffn_dim=128, layers=3, heads=1, width=SIZE, height=SIZE)
EMPTY = {"duration": 1.0, "sample_rate": 16000, "channels": 1}
LIVETALK = replace(LIVETALK, audio=replace(LIVETALK.audio, first_layer=1, last_layer=2))


@pytest.fixture(scope="module")
def transformers_encoder(host):
    """A generator, an encoder file for the host, and the same encoder as transformers runs it."""
    torch.manual_seed(4)
    modules, adapters = WanModel(LIVETALK), Adapters(LIVETALK)
    for parameter in (*modules.parameters(), *adapters.parameters()):
        torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.1)
    path = host.folder / "models" / "diffusion_models" / "small-livetalk.safetensors"
    save_file({**modules.state_dict(), **adapters.state_dict()}, path, metadata={CARD_KEY: LIVETALK.to_json()})
    return write_wav2vec2(host.folder / "models" / "audio_encoders" / "wav2vec2-base-960h.safetensors")


@pytest.fixture(scope="module")
def reader(host):
    """A node that gives the host's CLIP of type wan, made by the host's loader at the narrow sizes."""
    import comfy.sd
    import nodes

    class NarrowUMT5:
        CATEGORY, FUNCTION, RETURN_TYPES = "test", "load", ("CLIP",)

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def load(self):
            options = {"umt5xxl_model_config": NARROW}
            return (comfy.sd.load_text_encoder_state_dicts([umt5_tensors()], clip_type=comfy.sd.CLIPType.WAN, model_options=options),)

    nodes.NODE_CLASS_MAPPINGS["NarrowUMT5"] = NarrowUMT5
    yield ("NarrowUMT5", {})
    del nodes.NODE_CLASS_MAPPINGS["NarrowUMT5"]


def livetalk(prefix: str, **changed) -> dict:
    changed["sampler"] = {"seconds": 1.0} | changed.get("sampler", {})
    prompt = talking(prefix=prefix, load={"model_name": "small-livetalk.safetensors", "accept_licence": True}, **changed)
    return also(prompt, ears=("AudioEncoderLoader", {"audio_encoder_name": "wav2vec2-base-960h.safetensors"}))


def test_the_hosts_encoder_hears_what_transformers_hears(host, transformers_encoder):
    ran = host.run(livetalk("heard", audio={"audio_encoder": ["ears", 0]}))
    assert ran.succeeded, ran.error
    encoder = ran.outputs["ears"][0]
    wrapped = type(host.of_pack("host.encoders").HostWav2Vec2(encoder))
    wave, places = torch.randn(16000), torch.linspace(0, 48.5, 17)
    theirs = wav2vec2.encode(wrapped(encoder), wave, places)
    ours = wav2vec2.encode(transformers_encoder, wave, places)
    assert theirs.shape == (17, 14 * 768)
    assert (theirs - ours).abs().max() < 1e-3 * ours.abs().max()


def test_livetalk_speaks_with_the_sound_it_hears(host, transformers_encoder):
    ears = {"audio_encoder": ["ears", 0]}
    spoken = host.run(livetalk("spoken", audio=ears)).outputs["decode"]
    silent = host.run(livetalk("silent", audio=ears | {"strength": 0.0})).outputs["decode"]
    assert spoken[1].shape == (16, SIZE, SIZE, 3) and spoken[1].isfinite().all()
    assert not torch.equal(spoken[1], silent[1])


def test_without_ears_the_sampler_says_which_are_needed(host, transformers_encoder):
    prompt = talking(prefix="deaf", load={"model_name": "small-livetalk.safetensors", "accept_licence": True}, sampler={"seconds": 1.0})
    without_a_voice = {**prompt, "sampler": {**prompt["sampler"], "inputs": dict(prompt["sampler"]["inputs"])}}
    del without_a_voice["sampler"]["inputs"]["driving"]
    for each in (prompt, without_a_voice):
        ran = host.run(each)
        assert ran.error["node_id"] == "sampler" and "hears through wav2vec 2.0, silence too" in ran.error["exception_message"]


def test_without_a_voice_silence_is_heard(host, transformers_encoder):
    """As on the command line, and as if Empty Audio were connected; an empty clip only ends where no voice never does."""
    ears = {"audio_encoder": ["ears", 0]}

    def drawn(prompt: dict) -> torch.Tensor:
        ran = host.run(prompt)
        assert ran.succeeded, ran.error
        return ran.outputs["decode"][1]

    without = livetalk("without", audio=ears)
    del without["audio"]["inputs"]["audio"]
    silence = drawn(without)
    empty = drawn(also(livetalk("empty", audio=ears | {"audio": ["nothing", 0]}), nothing=("EmptyAudio", EMPTY)))
    deaf, spoken = (drawn(livetalk(name, audio=ears | {"strength": strength})) for name, strength in (("deaf", 0.0), ("spoken", 1.0)))
    assert silence.shape == (16, SIZE, SIZE, 3)
    assert (silence - empty).norm() < 0.5 * min((silence - deaf).norm(), (silence - spoken).norm())


def test_what_the_script_says_is_read_by_the_hosts_umt5(host, transformers_encoder, reader):
    def saying(words: str, prefix: str) -> dict:
        prompt = livetalk(prefix, audio={"audio_encoder": ["ears", 0]}, sampler={"driving": ["script", 0]})
        script = ("KnotForcingScript", {"driving": ["audio", 0], "script": words, "clip": ["umt5", 0]})
        return also(prompt, umt5=reader, script=script)

    one = host.run(saying("a man smiles", "one"))
    assert one.succeeded, one.error
    other = host.run(saying("a man looks at the camera", "other"))
    assert not torch.equal(one.outputs["decode"][1], other.outputs["decode"][1])
    changing = host.run(saying("[00:00-00:00.5] a man smiles\n[00:00.5-] a man looks", "changing"))
    assert torch.equal(changing.outputs["decode"][1][:8], one.outputs["decode"][1][:8])
    assert not torch.equal(changing.outputs["decode"][1][9:], one.outputs["decode"][1][9:])
    embedding = host.of_pack("host.encoders").HostReader(one.outputs["umt5"][0], 512)("a man smiles")
    tokens = len("a man smiles") + 2  # a letter each, a mark in front, an end
    assert embedding.shape == (1, 512, 4096) and embedding[:, :tokens].isfinite().all()
    assert embedding[:, tokens - 1].any() and not embedding[:, tokens:].any(), "zeros after the prompt"


def test_what_is_read_ahead_is_the_same_and_takes_no_more_than_its_own_tokens(host, reader):
    import nodes

    (clip,), prompts = nodes.NODE_CLASS_MAPPINGS[reader[0]]().load(), [f"a man says {number}" for number in range(70)]
    later, ahead = (host.of_pack("host.encoders").HostReader(clip, 512) for _ in range(2))
    ahead.encode_ahead(prompts)
    assert all(torch.equal(ahead(prompt), later(prompt)) for prompt in prompts[:3])
    held = [said.untyped_storage().nbytes() for said, _ in ahead._encoded.values()]
    is_on_processor = clip.patcher.load_device.type == "cpu"  # there the rest is read when its time comes
    assert len(held) == (64 if is_on_processor else 70) and max(held) <= 16 * 4096 * 4


def test_guidance_leads_away_from_the_negative_prompt_and_is_refused_where_nobody_reads(host, transformers_encoder, reader):
    def guided(prefix: str, guidance: float, negative: str | None, read: bool = True) -> dict:
        prompt = livetalk(prefix, audio={"audio_encoder": ["ears", 0]}, sampler={"driving": ["script", 0], "guidance": guidance})
        inputs = {"driving": ["audio", 0], "script": "a man smiles"} | ({"clip": ["umt5", 0]} if read else {})
        script = ("KnotForcingScript", inputs | ({} if negative is None else {"negative_prompt": negative}))
        return also(prompt, umt5=reader, script=script)

    plain, off, same, away, else_where = (
        host.run(guided(*case))
        for case in (
            ("plain", 0.0, None),
            ("off", 1.0, None),
            ("same", 3.0, "a man smiles"),
            ("away", 3.0, "a man looks"),
            ("elsewhere", 3.0, "a man waves"),
        )
    )

    def frames(ran):
        return ran.outputs["decode"][1]

    assert plain.succeeded and away.succeeded, away.messages[-1]
    assert torch.equal(frames(plain), frames(off)) and (frames(plain) - frames(same)).abs().max() < 0.02
    assert not torch.equal(frames(plain), frames(away)) and not torch.equal(frames(away), frames(else_where))
    assert "takes twice as long" in away.said("decode")[-1] and "takes twice as long" not in plain.said("decode")[-1]
    refused = host.run(guided("unread", 3.0, None, read=False))
    assert refused.error["node_id"] == "sampler" and "no text encoder is loaded that reads them" in refused.error["exception_message"]


def test_a_script_read_by_another_encoder_or_by_none_is_another_stream(host, transformers_encoder, reader):
    """What was drawn with the words must not be taken for what is drawn without them."""
    script = ("KnotForcingScript", {"driving": ["audio", 0], "script": "a man speaks"})
    unread = also(livetalk("unread", audio={"audio_encoder": ["ears", 0]}, sampler={"driving": ["script", 0]}), script=script)
    without = host.run(unread)
    assert "no text encoder is loaded" in without.said("decode")[-1]
    read = also(unread, umt5=reader, script=(script[0], script[1] | {"clip": ["umt5", 0]}))
    assert not torch.equal(host.run(read).outputs["decode"][1], without.outputs["decode"][1])
