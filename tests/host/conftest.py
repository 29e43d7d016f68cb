"""A real ComfyUI in this process: its executor, a server that is never started, this pack loaded as it loads any, and tiny models."""

import asyncio
import importlib.util
import shutil
import sys
import wave
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from kf_core.checkpoints import known_models as known
from kf_core.checkpoints.vae_names import diffusers_name
from kf_core.models.adapters import Adapters
from kf_core.models.card import CARD_KEY, AudioSpec, ModelCard, PoseSpec, TextSpec
from kf_core.models.wan import WanModel
from kf_core.schedule import warped
from kf_core.settings import Ahead, RolloutSettings
from kf_core.vae.taehv import TinyVAE
from kf_core.vae.wan import WanVAE

from .place import PACK, enter_host, pack_folder

SIZE = 32  # pixels
KINDS = ("diffusion_models", "vae", "loras", "audio_encoders", "text_encoders", "upscale_models")
EXTRAS = ("video", "audio", "images", "audio_encoder", "upscale_model", "torch_compile")
PROGRESS_TEXT = 3  # ComfyUI's number for a line of text on a node
CARD = ModelCard(
    name="tiny",
    dim=128,
    ffn_dim=128,
    layers=2,
    heads=1,
    in_channels=33,
    text=TextSpec(kind="none", width=64, tokens=1),
    audio=AudioSpec(kind="log-mel", width=256, code=8, first_layer=1, last_layer=1),
    pose=PoseSpec(),
    expression=("smile", "brows", "gaze_x", "gaze_y", "blink"),
    motion_strength=True,
    rollout=RolloutSettings(schedule=warped((1000, 500)), anchor=Ahead(7, 5)),
    width=SIZE,
    height=SIZE,
)


def write_models(folder: Path) -> None:
    """A random generator, the same without adapters as the host's own loader wants it, its VAE, and a LoRA."""
    torch.manual_seed(0)
    modules, adapters, vae = WanModel(CARD), Adapters(CARD), WanVAE(dim=4)
    for parameter in (*modules.parameters(), *adapters.parameters()):
        torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.1)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    plain = modules.state_dict()
    save_file({**plain, **adapters.state_dict()}, folder / "diffusion_models" / "tiny.safetensors", metadata={CARD_KEY: CARD.to_json()})
    other = WanModel(replace(CARD, text=TextSpec(kind="none", width=4096, tokens=1)))  # ComfyUI's own loader takes no other width
    save_file(other.state_dict(), folder / "diffusion_models" / "plain.safetensors")
    save_file(vae.state_dict(), folder / "vae" / "tiny-vae.safetensors")
    lora = {}
    for layer in range(CARD.layers):
        name = f"diffusion_model.blocks.{layer}.self_attn.o"
        lora[f"{name}.lora_A.weight"], lora[f"{name}.lora_B.weight"] = torch.randn(4, CARD.dim), torch.randn(CARD.dim, 4)
    save_file(self_forcing_of_one_layer(), folder / "diffusion_models" / "self_forcing_dmd.safetensors")
    save_file(lora, folder / "loras" / "random.safetensors")


def self_forcing_of_one_layer() -> dict[str, torch.Tensor]:
    """As wide as Self-Forcing's generator, so that it is recognised, but with one layer of its thirty."""
    card = replace(known.self_forcing(), layers=1, ffn_dim=256)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in WanModel(card).state_dict().items()}
    return {name: (torch.randn(shape) * 0.02).bfloat16() for name, shape in shapes.items()}


def write_inputs(folder: Path) -> None:
    """A portrait and two seconds of something like speech."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:48, 0:48] / 48
    Image.fromarray((np.stack((rows, columns, np.sin(20 * rows * columns) ** 2), -1) * 255).astype(np.uint8)).save(folder / "portrait.png")
    for name, seconds in (("voice", 2.0), ("short", 1.0)):
        time = np.arange(round(16000 * seconds)) / 16000
        sound = 0.4 * np.sin(2 * np.pi * 300 * time) * np.sin(2 * np.pi * 3 * time)
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes((sound * 32767).astype("<i2").tobytes())


@dataclass
class Ran:
    """What came of one queued prompt."""

    succeeded: bool
    outputs: dict[str, tuple]  # node -> its outputs, as the host keeps them
    messages: list[tuple[str, dict]]
    events: list[tuple[Any, Any]]  # what the browser was sent
    cached: set[str] = field(default_factory=set)

    @property
    def error(self) -> dict:
        return next(data for event, data in self.messages if event == "execution_error")

    def said(self, node: str) -> list[str]:
        """The lines shown on a node."""
        texts = [data for event, data in self.events if event == PROGRESS_TEXT]
        parts = [(data[4 : 4 + int.from_bytes(data[:4], "big")].decode(), data[4 + int.from_bytes(data[:4], "big") :]) for data in texts]
        return [text.decode() for id, text in parts if id == node]


class Host:
    """The executor of a real ComfyUI."""

    def __init__(self, folder: Path) -> None:
        self.place = enter_host("execution", "nodes", "server")
        import comfy.utils
        import execution
        import folder_paths
        import nodes
        import server
        from comfy_execution.progress import get_progress_state
        from comfy_execution.utils import get_executing_context

        assert Path(nodes.__file__).parent == self.place, "the host's nodes.py must come before this pack's nodes"
        self.folder, self._execution, self._nodes = folder, execution, nodes
        self.events: list[tuple[Any, Any]] = []
        self.cancels_at = ""  # press Cancel when a node says this
        self.listener = None  # hears every line on a node
        for kind in ("input", "output", "temp"):
            (folder / kind).mkdir()
            getattr(folder_paths, f"set_{kind}_directory")(str(folder / kind))
        folder_paths.models_dir = str(folder / "models")
        for kind in KINDS:
            folder_paths.folder_names_and_paths[kind] = ([str(folder / "models" / kind)], folder_paths.supported_pt_extensions)
        write_models(folder / "models")
        write_inputs(folder / "input")
        self.server = server.PromptServer(asyncio.new_event_loop())
        self.server.client_id = "test"
        self.server.send_sync = self._receive

        def hook(value, total, preview, prompt_id=None, node_id=None):  # as main.py does it
            comfy.model_management.throw_exception_if_processing_interrupted()
            get_progress_state().update_progress(node_id or get_executing_context().node_id, value, total, preview)

        comfy.utils.set_progress_bar_global_hook(hook)
        for extra in EXTRAS:
            assert asyncio.run(nodes.load_custom_node(str(self.place / "comfy_extras" / f"nodes_{extra}.py"), module_parent="comfy_extras"))
        assert asyncio.run(nodes.load_custom_node(str(PACK)))
        self.fresh()

    def _receive(self, event, data, sid=None) -> None:
        self.events.append((event, data))
        if event != PROGRESS_TEXT:
            return
        text = bytes(data)[4 + int.from_bytes(data[:4], "big") :].decode()
        if self.cancels_at and self.cancels_at in text:
            self._nodes.interrupt_processing()
        if self.listener is not None:
            self.listener(text)

    def fresh(self) -> None:
        """Forget all cached outputs."""
        self.executor = self._execution.PromptExecutor(self.server, cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0})

    def of_pack(self, file: str):
        """A module of the pack's nodes, as the host loaded it."""
        return next(module for name, module in sys.modules.items() if name.endswith(f"{PACK.name}.nodes.{file}"))

    def forget_streams(self) -> None:
        """Throw away what was drawn, so that it is drawn again."""
        shutil.rmtree(self.folder / "output" / "knot_forcing" / ".streams", ignore_errors=True)

    def load_another_pack(self, name: str, needs: str) -> None:
        """Load somebody else's pack; without it, or without the package it needs, the test skips."""
        folder = pack_folder(name)
        if importlib.util.find_spec(needs) is None:
            pytest.skip(f"{name.upper()} NEEDS THE PACKAGE {needs}: install it to test together with it")
        assert asyncio.run(self._nodes.load_custom_node(str(folder))), f"{folder} cannot be loaded"

    def run(self, prompt: dict[str, dict], *wanted: str) -> Ran:
        self.events.clear()
        valid = asyncio.run(self._execution.validate_prompt("test", prompt, None))
        assert valid[0], valid
        self.executor.execute(prompt, "test", {"client_id": "test"}, list(wanted) or valid[2])
        messages = self.executor.status_messages
        cached = set(next(data["nodes"] for event, data in messages if event == "execution_cached"))
        outputs = {}
        for node in prompt:
            entry = asyncio.run(self.executor.caches.outputs.get(node))
            if entry is not None:
                outputs[node] = tuple(values[0] for values in entry.outputs)
        return Ran(self.executor.success, outputs, messages, list(self.events), cached)


@pytest.fixture(scope="session")
def host(tmp_path_factory) -> Host:
    found = Host(tmp_path_factory.mktemp("host"))
    yield found
    sys.path.remove(str(found.place))


@pytest.fixture(scope="session")
def tiny(host) -> TinyVAE:
    """Random tiny decoders under the published names, in the published precisions."""
    import folder_paths

    torch.manual_seed(0)
    tiny = TinyVAE("model").requires_grad_(False)
    last = tiny.decoder[22]
    last.weight *= 0.15 / tiny.decode(torch.randn(1, 16, 3, 4, 4), {}).std()  # round mid grey, so that little is cut off at black or white
    last.bias += 0.5 - tiny.decode(torch.randn(1, 16, 3, 4, 4), {}).mean()
    models = host.folder / "models"
    (models / "vae_approx").mkdir(exist_ok=True)
    folder_paths.folder_names_and_paths["vae_approx"] = ([str(models / "vae_approx")], folder_paths.supported_pt_extensions)
    weights = {name: tensor.half() for name, tensor in tiny.state_dict().items()}
    save_file(weights, models / "vae" / "taew2_1.safetensors")
    save_file({name: tensor.float() for name, tensor in weights.items()}, models / "vae_approx" / "lighttaew2_1.safetensors")
    save_file(weights, models / "vae_approx" / "taehv.safetensors")
    tiny.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    whole = load_file(models / "vae" / "tiny-vae.safetensors")
    save_file({diffusers_name(name): tensor for name, tensor in whole.items()}, models / "vae" / "diffusers.safetensors")
    return tiny


def talking(seed: int = 0, prefix: str = "talk", **changed: dict) -> dict[str, dict]:
    """The five nodes as a prompt. `changed`: node -> inputs to set otherwise."""
    prompt = {
        "load": ("KnotForcingLoadModel", {"model_name": "tiny.safetensors", "vae_name": "tiny-vae.safetensors"}),
        "image": ("LoadImage", {"image": "portrait.png"}),
        "voice": ("LoadAudio", {"audio": "voice.wav"}),
        "anchor": (
            "KnotForcingEncodeAnchor",
            {"portrait": ["image", 0], "model": ["load", 0], "vae": ["load", 1], "width": 0, "height": 0},
        ),
        "audio": ("KnotForcingAudio", {"audio": ["voice", 0], "strength": 1.0}),
        "sampler": (
            "KnotForcingSampler",
            {"model": ["load", 0], "anchor": ["anchor", 0], "driving": ["audio", 0], "seconds": 0.0, "seed": seed, "steps": 0} | OWN,
        ),
        "decode": (
            "KnotForcingDecode",
            {
                "stream": ["sampler", 0],
                "vae": ["load", 1],
                "filename_prefix": prefix,
                "keep_frames": True,
                "max_frames": 480,
            },
        ),
    }
    prompt = {node: {"class_type": kind, "inputs": dict(inputs)} for node, (kind, inputs) in prompt.items()}
    for node, inputs in changed.items():
        prompt[node]["inputs"].update(inputs)
    return prompt


OWN = dict.fromkeys(("chunk", "knot_frames", "window", "anchor_start", "anchor_stride", "pinned"), -1)
OWN |= dict.fromkeys(("knot", "fuse", "anchor_rule", "pinned_place", "first_frame"), "the model's own")


def also(prompt: dict[str, dict], **nodes: tuple[str, dict]) -> dict[str, dict]:
    """The prompt with further nodes."""
    return prompt | {node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}
