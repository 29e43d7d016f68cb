"""What is wired wrongly, or cannot be, is said in one clear sentence on the node where it can be put right."""

import pytest

from .conftest import OWN, also, talking

WRONG = {
    "a portrait batch": (
        also(talking(anchor={"portrait": ["two", 0]}), two=("RepeatImageBatch", {"image": ["picture", 0], "amount": 2})),
        "anchor",
        "a batch of 2 pictures, and one is needed",
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
    "a file without a card": (talking(load={"model_name": "plain.safetensors"}), "load", "no Knot Forcing card"),
    "a model with kf-tiny's VAE": (talking(load={"vae_name": "kf-tiny (bundled)"}), "load", "tiny draws for Wan 2.1's own VAE"),
    "another VAE for the portrait": (
        also(talking(anchor={"vae": ["pixels", 0]}), pixels=("VAELoader", {"vae_name": "pixel_space"})),
        "anchor",
        "the generator draws Wan 2.1 latents",
    ),
    "another VAE for the decoder": (
        also(talking(decode={"vae": ["pixels", 0]}), pixels=("VAELoader", {"vae_name": "pixel_space"})),
        "decode",
        "the generator draws Wan 2.1 latents",
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
    "too many pictures": (talking(seed=20, decode={"max_frames": 31}), "decode", "The stream has 32 pictures"),
    "a knot longer than the chunk": (talking(sampler={"chunk": 1, "knot_frames": 2}), "sampler", "cannot be longer than the chunk"),
    "a place outside": (talking(seed=22, decode={"filename_prefix": "../../elsewhere"}), "decode", "inside ComfyUI's output folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_clear_sentence_on_the_right_node(host, case):
    prompt, node, sentence = WRONG[case]
    host.fresh()
    ran = host.run(prompt)
    assert not ran.succeeded
    assert ran.error["node_id"] == node
    assert sentence in ran.error["exception_message"], ran.error["exception_message"]


def test_who_waits_for_pictures_that_were_not_kept_is_told_why(host):
    unkept = talking(seed=21, decode={"keep_pictures": False})
    ran = host.run(also(unkept, look=("PreviewImage", {"images": ["decode", 1]})))
    errors = [data for event, data in ran.events if event == "execution_error"]
    assert [error["node_id"] for error in errors] == ["look"]
    assert "`keep_pictures` is off" in errors[0]["exception_message"]
