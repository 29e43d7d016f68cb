"""The workflows that come with the pack, as data. `author_workflows.py` makes them in the real frontend.

A column is a step, with a title a creator understands; nodes stand in it from top to bottom. An input is written `node.output`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

CORE = "comfy-core"
FRONTEND_ONLY = {"MarkdownNote"}  # nodes that no server knows


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A file that a workflow wants, and where it can be had."""

    name: str
    url: str
    directory: str  # under ComfyUI's models


@dataclass(frozen=True, kw_only=True)
class Node:
    type: str
    widgets: Mapping[str, object] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)  # at least, in canvas pixels
    is_bypassed: bool = False
    models: tuple[ModelFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Workflow:
    name: str  # as it is listed under Templates
    note: str
    columns: Mapping[str, Mapping[str, Node]]
    shows: str = "video"  # the node that makes the video
    thumbnail_at: float = 1.0  # seconds
    thumbnail_seconds: float = 2.0  # how much is made for it
    is_runnable: bool = True  # without a download; else the thumbnail is an image of the nodes

    def nodes(self) -> dict[str, Node]:
        return {name: node for column in self.columns.values() for name, node in column.items()}


NOTE_SIZE = (340, 470)
VIDEO_SIZE = (350, 570)
EXAMPLE = Node(type="KnotForcingExample", widgets={"face": "Mia"}, size=(290, 0))
ZURI, TOM = (replace(EXAMPLE, widgets={"face": name}) for name in ("Zuri", "Tom"))  # so that thumbnails can be told apart
MODEL = Node(type="KnotForcingLoadModel", size=(290, 240))  # its note appears below the widgets
ANCHOR = Node(
    type="KnotForcingEncodeAnchor", inputs={"portrait": "example.portrait", "model": "model.MODEL", "vae": "model.VAE"}, size=(290, 0)
)
VOICE = Node(type="KnotForcingAudio", inputs={"audio": "example.voice"}, size=(290, 0))
SETUP = {"example": EXAMPLE, "model": MODEL, "anchor": ANCHOR}


def sampler(driving: str, **widgets: object) -> Node:
    inputs = {"model": "model.MODEL", "anchor": "anchor.anchor", "driving": f"{driving}.driving"}
    return Node(type="KnotForcingSampler", inputs=inputs, widgets=widgets, size=(300, 0))


def video(prefix: str) -> Node:
    widgets = {"filename_prefix": f"knot_forcing/{prefix}"}
    return Node(type="KnotForcingDecode", inputs={"stream": "sampler.stream", "vae": "model.VAE"}, widgets=widgets, size=VIDEO_SIZE)


OWN_FILES = """**Your own frame and voice.** Drop a frame and a sound file on the canvas and connect them in place of \
*Example Portrait & Voice*. kf-tiny, the bundled model, draws cartoons; it is not made for photographs."""

TALKING = Workflow(
    name="Talking portrait",
    note=f"""# Talking portrait

One frame and one voice become a video. Press **Run**: the face appears on *Streaming Decode* while it is made, and the finished film \
with its sound takes its place. Nothing has to be downloaded.

{OWN_FILES}

- The video is as long as the voice, up to hours; the memory stays the same.
- **Cancel** whenever you like: what is there can be played, and **Run** goes on from there.
- Another `seed`, another performance.""",
    columns={
        "1. Who": SETUP,
        "2. What drives it": {"voice": VOICE, "sampler": sampler("voice")},
        "3. The video": {"video": video("talking")},
    },
    thumbnail_at=1.6,
)

POSED = Workflow(
    name="Pose-driven portrait",
    note=f"""# Pose-driven portrait

The head follows pose frames: white dots for the face, coloured lines for head and shoulders, on black, one frame for each moment. \
The example turns, nods and tilts for 11 seconds. There is no voice here, so the mouth rests.

**Your own movement.** Load a video, take its frames (*Get Video Components*), send them through a DWPose or OpenPose node with \
the face switched on (from a pack of its own, such as comfyui_controlnet_aux), and connect the result to `pose_images`. \
Set `pose_fps` to the rate of your video.

Without frames, the angles `yaw`, `pitch` and `roll` hold the head.

{OWN_FILES}""",
    columns={
        "1. Who": {**SETUP, "example": ZURI},
        "2. What drives it": {
            "pose": Node(type="KnotForcingPose", inputs={"pose_images": "example.pose_images"}, size=(290, 0)),
            "sampler": sampler("pose"),
        },
        "3. The video": {"video": video("posed")},
    },
    thumbnail_at=1.2,
)

TOGETHER = Workflow(
    name="Voice, pose and expression",
    note=f"""# Voice, pose and expression

The voice moves the mouth, pose frames hold the head, sliders set the look. Each node adds its part and hands on what came before; \
their order does not matter.

- Every `strength` goes from 0 (not at all) over 1 (as trained) to 2 (exaggerated).
- `motion` says how lively face and head are.
- What stays at 0 under *Expression & Motion* is left to the model.

{OWN_FILES}""",
    columns={
        "1. Who": {**SETUP, "example": TOM},
        "2. What drives it": {
            "voice": VOICE,
            "pose": Node(type="KnotForcingPose", inputs={"pose_images": "example.pose_images", "driving": "voice.driving"}, size=(290, 0)),
            "look": Node(
                type="KnotForcingExpression",
                inputs={"driving": "pose.driving"},
                widgets={"smile": 0.6, "brows": 0.3, "motion": 1.2},
                size=(290, 0),
            ),
        },
        "3. Put together": {"sampler": sampler("look")},
        "4. The video": {"video": video("together")},
    },
    thumbnail_at=0.9,
)

SCRIPT = """[00:00-00:11] look at the camera, slight smile, lively
[00:11-00:14] nod, smile
[00:14-00:18] look left, raise brows
[00:18-00:22] turn right slightly, calm
[00:22-00:26] look at the camera, big smile
[00:26-00:30] shake head slightly, serious
[00:30-] look at the camera, slight smile, calm"""

ENDLESS = Workflow(
    name="Endless host with a script",
    note=f"""# Endless host with a script

A host who greets, and then stays: an hour is asked for (`seconds` is 3600), and a line of the script says what happens when. \
The memory does not grow, and you see the host from the first second.

**Press Cancel when you have enough.** The film up to there is in ComfyUI's output folder, under `knot_forcing`, and plays. \
**Run** again, and it goes on from there, also tomorrow, also after a crash.

The script: `[minutes:seconds-minutes:seconds]` and words. kf-tiny understands smile, frown, surprised, nod, shake head, look or turn \
left and right, tilt, blink, calm, lively, and degrees of them such as slight and big.

The voice ends after 11 seconds; from then on the host is silent. Connect a longer one, and the host talks longer.

{OWN_FILES}""",
    columns={
        "1. Who": {**SETUP, "example": TOM},
        "2. What happens when": {
            "voice": VOICE,
            "script": Node(type="KnotForcingScript", inputs={"driving": "voice.driving"}, widgets={"script": SCRIPT}, size=(400, 220)),
        },
        "3. Put together": {"sampler": sampler("script", seconds=3600.0)},
        "4. The video": {"video": video("host")},
    },
    thumbnail_at=0.8,
)

UPSCALER = ModelFile(
    name="RealESRGAN_x4plus.safetensors",
    url="https://huggingface.co/Comfy-Org/Real-ESRGAN_repackaged/resolve/main/RealESRGAN_x4plus.safetensors",
    directory="upscale_models",
)

SEGMENTS = Workflow(
    name="Segments through an upscaler",
    note=f"""# Segments through an upscaler

Any frame node works on video of any length, a few seconds at a time: *Next Segment* hands out the next 2 seconds, *Append Segment* \
puts them at the end of one film with sound. The memory stays that of one segment.

**How to run it.** The voice lasts 11 seconds: 6 segments of 2 seconds. Set the number beside **Run** to **6** and press **Run**. `index` \
counts up by itself; set it to 0 to begin again.

**A real upscaler.** *Upscale Image (using Model)* and its loader are switched off (bypassed), so that this runs without a download. Put \
[{UPSCALER.name}]({UPSCALER.url}) into `models/{UPSCALER.directory}`, select both nodes and press **Ctrl+B**. A face restorer goes in the \
same place. *Upscale Image* then brings everything to one size.

{OWN_FILES}""",
    columns={
        "1. Who": {**SETUP, "example": ZURI},
        "2. What drives it": {"voice": VOICE, "sampler": sampler("voice")},
        "3. A segment, made larger": {
            "segment": Node(
                type="KnotForcingNextSegment",
                inputs={"stream": "sampler.stream", "vae": "model.VAE"},
                widgets={"seconds": 2.0},
                size=(310, 330),
            ),
            "loader": Node(
                type="UpscaleModelLoader", widgets={"model_name": UPSCALER.name}, models=(UPSCALER,), size=(310, 0), is_bypassed=True
            ),
            "upscaled": Node(
                type="ImageUpscaleWithModel",
                inputs={"upscale_model": "loader.UPSCALE_MODEL", "image": "segment.images"},
                size=(310, 0),
                is_bypassed=True,
            ),
            "sized": Node(
                type="ImageScale",
                inputs={"image": "upscaled.IMAGE"},
                widgets={"upscale_method": "lanczos", "width": 384, "height": 384, "crop": "disabled"},
                size=(310, 0),
            ),
        },
        "4. The film": {
            "video": Node(
                type="KnotForcingAppendSegment",
                inputs={"images": "sized.IMAGE", "segment": "segment.segment"},
                widgets={"filename_prefix": "knot_forcing/upscaled"},
                size=VIDEO_SIZE,
            )
        },
    },
    thumbnail_at=1.6,
)

HUGGING_FACE = "https://huggingface.co"
WAN_FILES = f"{HUGGING_FACE}/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"
WAN_VAE = ModelFile(name="wan_2.1_vae.safetensors", url=f"{WAN_FILES}/vae/wan_2.1_vae.safetensors", directory="vae")
UMT5 = ModelFile(name="umt5_xxl_fp16.safetensors", url=f"{WAN_FILES}/text_encoders/umt5_xxl_fp16.safetensors", directory="text_encoders")
WAV2VEC2 = ModelFile(
    name="model.safetensors", url=f"{HUGGING_FACE}/facebook/wav2vec2-base-960h/resolve/main/model.safetensors", directory="audio_encoders"
)
LIVETALK_FILE = ModelFile(
    name="model.safetensors", url=f"{HUGGING_FACE}/GAIR/LiveTalk-1.3B-V0.1/resolve/main/model.safetensors", directory="diffusion_models"
)
SELF_FORCING_FILE = ModelFile(
    name="self_forcing_dmd.pt",
    url=f"{HUGGING_FACE}/gdhe17/Self-Forcing/resolve/main/checkpoints/self_forcing_dmd.pt",
    directory="diffusion_models",
)
READER = Node(type="CLIPLoader", widgets={"clip_name": UMT5.name, "type": "wan"}, models=(UMT5,), size=(290, 0))


def downloaded(*files: ModelFile) -> str:
    """Where each file is had, and where it goes."""
    return "\n".join(f"- [{file.name}]({file.url}) into `models/{file.directory}`" for file in files)


def causal_model(file: ModelFile) -> Node:
    widgets = {"model_name": file.name, "vae_name": WAN_VAE.name}
    return replace(MODEL, widgets=widgets, models=(file, WAN_VAE))


LIVETALK = Workflow(
    name="LiveTalk - portrait, voice and prompt",
    note=f"""# LiveTalk: portrait, voice and prompt

A photograph, a voice and a sentence become a person who speaks, by LiveTalk 1.3B. Connect your own frame and voice in place of the \
cartoon: LiveTalk was made for photographs. It was checked on random weights only; the published files have not been run by us.

**Download:**

{downloaded(LIVETALK_FILE, WAN_VAE, UMT5, WAV2VEC2)}

**Licence.** LiveTalk's README says Apache-2.0, its LICENSE file CC BY-NC-SA 4.0 (non-commercial). The model waits until you have read it \
and switch `accept_licence` on.

- `method` on *Knot Forcing Sampler*: *the model's own* is how its authors run it; *knot forcing* lets the portrait run ahead.
- The voice decides the length. Up to 30 s it is heard as its authors do; beyond, in windows of 20 s.
- `[00:05-00:08] she smiles` in the script changes the prompt for these seconds.""",
    columns={
        "1. Who": {"example": EXAMPLE, "model": causal_model(LIVETALK_FILE), "anchor": ANCHOR},
        "2. What hears and reads": {
            "hearing": Node(type="AudioEncoderLoader", widgets={"audio_encoder_name": WAV2VEC2.name}, models=(WAV2VEC2,), size=(290, 0)),
            "reading": READER,
        },
        "3. What drives it": {
            "voice": replace(VOICE, inputs={**VOICE.inputs, "audio_encoder": "hearing.AUDIO_ENCODER"}),
            "script": Node(
                type="KnotForcingScript",
                inputs={"driving": "voice.driving", "clip": "reading.CLIP"},
                widgets={"script": "A person speaks to the camera, calm, soft light, plain background."},
                size=(400, 160),
            ),
            "sampler": sampler("script"),
        },
        "4. The video": {"video": video("livetalk")},
    },
    is_runnable=False,
)

TEXT_TO_VIDEO = Workflow(
    name="Text to video with a causal model",
    note=f"""# Text to video with a causal model

A sentence becomes a video that is shown while it is made, by Self-Forcing 1.3B or another causal student of Wan 2.1. Lines with times \
change the sentence while it runs. It was checked on random weights only; the published files have not been run by us.

**Download:**

{downloaded(SELF_FORCING_FILE, WAN_VAE, UMT5)}

Causal-Forcing and LongLive go the same way; `docs/checkpoints.md` says where they are and what they need.

- `method`: *the model's own* remembers every frame, so the memory grows with `seconds`; the frame on the left then only gives the \
size. *knot forcing* keeps the memory flat, and the frame is the anchor that everything stays close to.
- Sound plays no part here.""",
    columns={
        "1. Size, or anchor": {"example": EXAMPLE, "model": causal_model(SELF_FORCING_FILE), "anchor": ANCHOR},
        "2. What happens when": {
            "reading": READER,
            "script": Node(
                type="KnotForcingScript",
                inputs={"clip": "reading.CLIP"},
                widgets={
                    "script": "A red fox trots through fresh snow at dawn, mist between the trees, cinematic.\n[00:03-] The fox stops."
                },
                size=(400, 160),
            ),
            "sampler": sampler("script", seconds=5.0),
        },
        "3. The video": {"video": video("text")},
    },
    is_runnable=False,
)

WORKFLOWS = (TALKING, POSED, TOGETHER, ENDLESS, SEGMENTS, LIVETALK, TEXT_TO_VIDEO)
