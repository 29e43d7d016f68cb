"""Load KF Model: a generator and its decoder, from the pack itself, from a file, or from a MODEL that is there already."""

from comfy_api.latest import io

from ..kf_core.errors import KnotForcingError
from .host import folders, models, preview, vaes

CATEGORY = "Knot Forcing"
NONE = "none"
BY_ITSELF = "told by the file"


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
                    options=folders.model_files(),
                    default=folders.BUNDLED,
                    tooltip="The generator: kf-tiny (bundled, cartoons, runs on a CPU), or a .safetensors, .pt or .pth file in "
                    "models/diffusion_models or models/knot_forcing.",
                ),
                io.Combo.Input(
                    "vae_name",
                    options=folders.vae_files(),
                    default=folders.BUNDLED,
                    tooltip="The VAE that turns what the generator makes into frames. kf-tiny has its own, and a small decoder for it "
                    "that is faster and softer, for CPUs; every other model needs wan_2.1_vae.safetensors in models/vae. "
                    "taew2_1.safetensors decodes faster and softer, but cannot encode the portrait.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Instead of model_name: a causal Wan 2.1 MODEL from Load Diffusion Model, a GGUF loader or a LoRA loader. "
                    "A LoRA may also come after this node.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=[NONE, *folders.lora_files()],
                    default=NONE,
                    optional=True,
                    advanced=True,
                    tooltip="A LoRA in models/loras that the file's authors publish beside it (LongLive's lora.pt), folded in at full "
                    "strength.",
                ),
                io.Combo.Input(
                    "known_as",
                    options=[BY_ITSELF, *models.known_models()],
                    default=BY_ITSELF,
                    optional=True,
                    advanced=True,
                    tooltip="What the file is, where neither its name nor its contents tell: it decides chunk length, steps and window.",
                ),
                io.Boolean.Input(
                    "accept_licence",
                    default=False,
                    optional=True,
                    tooltip="Some models may not be used for everything: the node says so and waits until you have read their licence "
                    "and switch this on.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The generator. LoRA loaders may follow."),
                io.Vae.Output(tooltip="The VAE, for Encode Reference Anchor and Streaming Decode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model_name: str, vae_name: str, model=None, lora_name: str = NONE, known_as: str = BY_ITSELF, accept_licence: bool = False
    ) -> io.NodeOutput:
        told = {"known_as": None if known_as == BY_ITSELF else known_as, "accept_licence": accept_licence}
        if model is not None:
            model, remarks = models.adopt(model, **told)
        else:
            model, remarks = models.load_model(model_name, lora=None if lora_name == NONE else lora_name, **told)
        card = models.card_of(model)
        vae = vaes.load_vae(vae_name)
        if vaes.is_kf_tinys(vae_name, vae) and not models.is_bundled(card):
            raise KnotForcingError(
                f"{card.name} was made for Wan 2.1's own VAE, and kf-tiny's was chosen. "
                f"Put wan_2.1_vae.safetensors in models/vae and choose it in `vae_name`."
            )
        preview.set_status(cls.hidden.unique_id, " ".join(filter(None, (card.note, card.restricted, *remarks))))
        return io.NodeOutput(model, vae)


NODES = [LoadKFModel]
