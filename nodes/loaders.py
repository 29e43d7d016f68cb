"""Load KF Model: a generator and its decoder, from the pack itself, from a file, or from a MODEL that is there already."""

from comfy_api.latest import io

from ..kf_core.errors import KnotForcingError
from . import host, live

CATEGORY = "Knot Forcing"


class LoadKFModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingLoadModel",
            display_name="Load KF Model",
            category=CATEGORY,
            description="Loads a portrait generator and its VAE. kf-tiny comes with the pack and needs no download.",
            search_aliases=["knot forcing", "talking head", "avatar", "lip sync", "kf-tiny", "self forcing", "livetalk"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.model_files(),
                    default=host.BUNDLED,
                    tooltip="The generator: kf-tiny (bundled, cartoons, runs on a CPU), or a .safetensors file in "
                    "models/diffusion_models or models/knot_forcing.",
                ),
                io.Combo.Input(
                    "vae_name",
                    options=host.vae_files(),
                    default=host.BUNDLED,
                    tooltip="The VAE that turns what the generator draws into pictures. kf-tiny has its own; every other model needs "
                    "wan_2.1_vae.safetensors in models/vae.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Instead of model_name: a causal Wan 2.1 MODEL from Load Diffusion Model, a GGUF loader or a LoRA loader. "
                    "A LoRA may also come after this node.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The generator. LoRA loaders may follow."),
                io.Vae.Output(tooltip="The VAE, for Encode Reference Anchor and Streaming Decode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model_name: str, vae_name: str, model=None) -> io.NodeOutput:
        model = host.load_model(model_name) if model is None else host.adopt(model)
        card = host.card_of(model)
        if vae_name == host.BUNDLED and not card.name.startswith("kf-tiny"):
            raise KnotForcingError(
                f"{card.name} draws for Wan 2.1's own VAE, and kf-tiny's was chosen. "
                f"Put wan_2.1_vae.safetensors in models/vae and choose it in `vae_name`."
            )
        live.say(cls.hidden.unique_id, card.note)
        return io.NodeOutput(model, host.load_vae(vae_name))


NODES = [LoadKFModel]
