"""What is wired wrongly, or cannot be, is said in one clear sentence on the node where it can be put right."""

import pytest
import torch

from .conftest import OWN, also, talking
from .test_segments import segments


def worked_on(prefix: str, kind: str, **inputs) -> dict:
    """A segment through another node."""
    return segments(0, prefix) | {"larger": {"class_type": kind, "inputs": {"image": ["next", 0]} | inputs}}


WRONG = {
    "a portrait batch": (
        also(talking(anchor={"portrait": ["two", 0]}), two=("RepeatImageBatch", {"image": ["image", 0], "amount": 2})),
        "anchor",
        "a batch of 2 images, and one is needed",
    ),
    "an empty sound": (
        also(talking(audio={"audio": ["none", 0]}), none=("EmptyAudio", {"duration": 0.0, "sample_rate": 16000, "channels": 1})),
        "audio",
        "The sound is empty",
    ),
    "a model without a card": (
        also(talking(sampler={"model": ["unet", 0]}), unet=("UNETLoader", {"unet_name": "plain.safetensors", "weight_dtype": "default"})),
        "sampler",
        "Put Load KF Model in between",
    ),
    "a model nobody knows": (
        also(talking(load={"model": ["unet", 0]}), unet=("UNETLoader", {"unet_name": "plain.safetensors", "weight_dtype": "default"})),
        "load",
        "not a causal Wan 2.1 generator that this version knows",
    ),
    "a Stable Diffusion model": (
        also(talking(load={"model": ["other", 0]}), other=("SmallStableDiffusion", {})),
        "load",
        "is a BaseModel, and not a causal Wan 2.1 generator",
    ),
    "a Stable Diffusion model for the portrait": (
        also(talking(anchor={"model": ["other", 0]}), other=("SmallStableDiffusion", {})),
        "anchor",
        "no Knot Forcing card. Put Load KF Model in between",
    ),
    "two sounds at once": (
        also(talking(audio={"audio": ["two", 0]}), two=("TwoSounds", {})),
        "audio",
        "a batch of 2 sounds, and one is needed",
    ),
    "a file without a card": (talking(load={"model_name": "plain.safetensors"}), "load", "no Knot Forcing card"),
    "a model with kf-tiny's VAE": (talking(load={"vae_name": "kf-tiny (bundled)"}), "load", "tiny was made for Wan 2.1's own VAE"),
    "another VAE for the portrait": (
        also(talking(anchor={"vae": ["pixels", 0]}), pixels=("VAELoader", {"vae_name": "pixel_space"})),
        "anchor",
        "the generator makes Wan 2.1 latents",
    ),
    "another VAE for the decoder": (
        also(talking(decode={"vae": ["pixels", 0]}), pixels=("VAELoader", {"vae_name": "pixel_space"})),
        "decode",
        "the generator makes Wan 2.1 latents",
    ),
    "a size that does not fit": (talking(anchor={"width": 40}), "anchor", "it must be a multiple of 16. Set 32"),
    "no length": (
        {node: what for node, what in talking().items() if node not in ("audio", "voice")}
        | {
            "sampler": {
                "class_type": "KnotForcingSampler",
                "inputs": {"model": ["load", 0], "anchor": ["anchor", 0], "seconds": 0.0, "seed": 0, "steps": 0} | OWN,
            }
        },
        "sampler",
        "How long should the video be?",
    ),
    "too many frames": (talking(seed=20, decode={"max_frames": 31}), "decode", "The stream has 32 frames"),
    "a knot longer than the chunk": (talking(sampler={"chunk": 1, "knot_frames": 2}), "sampler", "cannot be longer than the chunk"),
    "more frames than the segment has": (
        worked_on("more", "RepeatImageBatch", amount=2),
        "join",
        "16 frames came, and segment 0 has 8",
    ),
    "a size that no video has": (
        worked_on("odd", "ImageScale", upscale_method="area", width=33, height=33, crop="disabled"),
        "join",
        "needs even sizes. Ask for 34x34",
    ),
    "a place outside": (talking(seed=22, decode={"filename_prefix": "../../elsewhere"}), "decode", "inside ComfyUI's output folder"),
}


class SmallStableDiffusion:
    """A MODEL of the kind of Stable Diffusion 1.5, without its size."""

    CATEGORY, FUNCTION, RETURN_TYPES = "test", "load", ("MODEL",)
    SIZES = dict(in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1], channel_mult=[1], num_heads=2)
    SIZES |= dict(transformer_depth=[1], transformer_depth_output=[1, 1], transformer_depth_middle=1, use_spatial_transformer=True)
    SIZES |= dict(image_size=32, legacy=False, use_linear_in_transformer=False, context_dim=64, adm_in_channels=None)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def load(self):
        from comfy.model_management import get_torch_device, unet_offload_device
        from comfy.model_patcher import ModelPatcher
        from comfy.supported_models import SD15

        config = SD15(dict(self.SIZES))
        config.set_inference_dtype(torch.float32, None)
        return (ModelPatcher(config.get_model({}, ""), get_torch_device(), unet_offload_device()),)


class TwoSounds(SmallStableDiffusion):
    RETURN_TYPES = ("AUDIO",)

    def load(self):
        return ({"waveform": torch.zeros(2, 1, 16000), "sample_rate": 16000},)


@pytest.fixture(scope="module", autouse=True)
def wrong_things(host):
    import nodes

    for kind in (SmallStableDiffusion, TwoSounds):
        nodes.NODE_CLASS_MAPPINGS[kind.__name__] = kind
    yield
    for kind in (SmallStableDiffusion, TwoSounds):
        del nodes.NODE_CLASS_MAPPINGS[kind.__name__]


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_sentence_on_the_right_node(host, case):
    prompt, node, sentence = WRONG[case]
    host.fresh()
    ran = host.run(prompt)
    assert not ran.succeeded
    assert ran.error["node_id"] == node
    assert sentence in ran.error["exception_message"], ran.error["exception_message"]


def test_who_waits_for_frames_that_were_not_kept_is_told_why(host):
    unkept = talking(seed=21, decode={"keep_frames": False})
    ran = host.run(also(unkept, look=("PreviewImage", {"images": ["decode", 1]})))
    errors = [data for event, data in ran.events if event == "execution_error"]
    assert [error["node_id"] for error in errors] == ["look"]
    assert "`keep_frames` is off" in errors[0]["exception_message"]
