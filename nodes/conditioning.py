"""What the user gives: the portrait, and what drives it. Each node adds its part to what came before.

When signals disagree, what is given as such beats what a script says: pose frames and angles over nods and turns, an expression
slider over smiles. The same kind given twice: the later node counts.
"""

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..kf_core.conditioning.audio import AudioArray
from ..kf_core.conditioning.expression import ExpressionTrack
from ..kf_core.conditioning.portrait import advice_on, livetalk_portrait, prepare_portrait
from ..kf_core.conditioning.pose import HeadAngles, PoseFrames
from ..kf_core.errors import KnotForcingError
from ..kf_core.vae.wan import SPATIAL_STRIDE
from .host import models, preview, vaes
from .loaders import CATEGORY
from .wires import AnchorWire, Driver, DrivingWire

STRENGTH = dict(default=1.0, min=0.0, max=2.0, step=0.05)
BEFORE = "What drives the stream so far, from another of these nodes. Their order does not matter."
DRIVING_OUT = "To Knot Forcing Sampler, or to the next of these nodes."


class EncodeReferenceAnchor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingEncodeAnchor",
            display_name="Encode Reference Anchor",
            category=CATEGORY,
            description="The portrait becomes the anchor that the generator keeps in view for ever, so that the person stays the same.",
            search_aliases=["portrait", "reference image", "identity", "first frame"],
            inputs=[
                io.Image.Input("portrait", tooltip="One image of the person: head and shoulders, looking at the camera."),
                io.Model.Input("model", tooltip="The generator from Load KF Model: it says which size it was trained at."),
                io.Vae.Input("vae", tooltip="The VAE from Load KF Model, or any Wan 2.1 VAE."),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=2048,
                    step=16,
                    advanced=True,
                    tooltip="Width of the video in pixels, a multiple of 16. 0: the size the model was trained at, which looks best.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=2048,
                    step=16,
                    advanced=True,
                    tooltip="Height of the video in pixels, a multiple of 16. 0: the size the model was trained at, which looks best.",
                ),
            ],
            outputs=[
                AnchorWire.Output(display_name="anchor", tooltip="To Knot Forcing Sampler."),
                io.Image.Output(display_name="cropped", tooltip="The portrait as it was cut and sized, to look at."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, portrait, model, vae, width: int, height: int) -> io.NodeOutput:
        card = models.card_of(model)
        width, height = _fitting("width", width or card.width), _fitting("height", height or card.height)
        image = one_image(portrait)
        cut = livetalk_portrait if card.image_channels == "portrait" else prepare_portrait
        prepared = cut(image, width, height)
        preview.set_status(cls.hidden.unique_id, "\n".join(advice_on(image, width, height)))
        return io.NodeOutput(vaes.encode_portrait(vae, prepared), prepared[0, :, 0].movedim(0, -1)[None])


class AudioConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingAudio",
            display_name="Audio Conditioning",
            category=CATEGORY,
            description="The voice moves the mouth, goes under the video, and says how long the video is.",
            search_aliases=["lip sync", "speech", "voice", "talking"],
            inputs=[
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="The voice, of any length and sample rate. Silence keeps the mouth still, and so does no voice at all.",
                ),
                io.Float.Input(
                    "strength", **STRENGTH, tooltip="How much the voice moves the mouth: 0 not at all, 1 as usual, 2 exaggerated."
                ),
                DrivingWire.Input("driving", optional=True, tooltip=BEFORE),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="Only for models that hear through wav2vec 2.0 (LiveTalk): wav2vec2-base-960h from AudioEncoderLoader.",
                ),
            ],
            outputs=[DrivingWire.Output(display_name="driving", tooltip=DRIVING_OUT)],
        )

    @classmethod
    def execute(cls, strength: float, audio=None, driving: Driver | None = None, audio_encoder=None) -> io.NodeOutput:
        before = driving or Driver()
        encoder = audio_encoder or before.audio_encoder
        voice = before.driving.audio if audio is None else heard(audio)
        return io.NodeOutput(replace(before, driving=replace(before.driving, audio=voice, audio_strength=strength), audio_encoder=encoder))


class PoseConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        angle = dict(default=0.0, min=-60.0, max=60.0, step=0.5)
        return io.Schema(
            node_id="KnotForcingPose",
            display_name="Pose Conditioning",
            category=CATEGORY,
            description="How the head is held: OpenPose-like frames of a face, or, without frames, three angles.",
            search_aliases=["openpose", "dwpose", "head pose", "yaw", "pitch", "roll"],
            inputs=[
                io.Image.Input(
                    "pose_images",
                    optional=True,
                    tooltip="Pose frames in OpenPose's face-70 colours, one for each moment. When they end, the head is free again.",
                ),
                io.Float.Input(
                    "pose_fps",
                    default=16.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="At how many frames a second pose_images play. They need not have the video's rate.",
                ),
                io.Float.Input("yaw", **angle, tooltip="Without pose_images: degrees to the viewer's right (left below 0)."),
                io.Float.Input("pitch", **angle, tooltip="Without pose_images: degrees downwards (upwards below 0)."),
                io.Float.Input("roll", **angle, tooltip="Without pose_images: degrees tipped clockwise."),
                io.Float.Input(
                    "strength", **STRENGTH, tooltip="How closely the pose is followed: 0 not at all, 1 as usual, 2 exaggerated."
                ),
                DrivingWire.Input("driving", optional=True, tooltip=BEFORE),
            ],
            outputs=[DrivingWire.Output(display_name="driving", tooltip=DRIVING_OUT)],
        )

    @classmethod
    def execute(
        cls, pose_fps: float, yaw: float, pitch: float, roll: float, strength: float, pose_images=None, driving: Driver | None = None
    ) -> io.NodeOutput:
        before = driving or Driver()
        pose = HeadAngles(keys=((0.0, yaw, pitch, roll),)) if pose_images is None else PoseFrames(pose_images[..., :3], pose_fps)
        return io.NodeOutput(replace(before, driving=replace(before.driving, pose=pose, pose_strength=strength)))


class ExpressionAndMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        both = dict(default=0.0, min=-1.0, max=1.0, step=0.05)
        return io.Schema(
            node_id="KnotForcingExpression",
            display_name="Expression & Motion",
            category=CATEGORY,
            description="The look of the face for the whole video, and how lively it moves. What stays at 0 is free for model and script.",
            search_aliases=["smile", "gaze", "eyebrows", "emotion", "motion strength"],
            inputs=[
                io.Float.Input("smile", **both, tooltip="-1 corners of the mouth down, 1 a broad smile, 0 left to the model."),
                io.Float.Input("brows", **both, tooltip="-1 knitted, 1 raised, 0 left to the model."),
                io.Float.Input("gaze_x", **both, tooltip="-1 looks to the viewer's left, 1 to the right, 0 left to the model."),
                io.Float.Input("gaze_y", **both, tooltip="-1 looks up, 1 looks down, 0 left to the model."),
                io.Float.Input("motion", **STRENGTH, tooltip="How lively head and face move: 0 still, 1 usual, 2 lively."),
                io.Float.Input("strength", **STRENGTH, tooltip="How much the expression shows: 0 not at all, 1 as usual, 2 exaggerated."),
                DrivingWire.Input("driving", optional=True, tooltip=BEFORE),
            ],
            outputs=[DrivingWire.Output(display_name="driving", tooltip=DRIVING_OUT)],
        )

    @classmethod
    def execute(
        cls, smile: float, brows: float, gaze_x: float, gaze_y: float, motion: float, strength: float, driving: Driver | None = None
    ) -> io.NodeOutput:
        before = driving or Driver()
        wanted = {"smile": smile, "brows": brows, "gaze_x": gaze_x, "gaze_y": gaze_y}
        tracks = tuple(ExpressionTrack(name, value) for name, value in wanted.items() if value)
        return io.NodeOutput(
            replace(before, driving=replace(before.driving, expression=tracks, motion=motion, expression_strength=strength))
        )


class ScriptNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingScript",
            display_name="Script",
            category=CATEGORY,
            description="What happens when, in words: a line for each moment. Lines without a time hold for the whole video.",
            search_aliases=["prompt", "timeline", "schedule", "time codes", "prompt travel"],
            inputs=[
                io.String.Input(
                    "script",
                    multiline=True,
                    default="[00:00-00:02] look at the camera\n[00:02-] slight smile, nod",
                    tooltip="[minutes:seconds-minutes:seconds] and words. kf-tiny understands smile, frown, surprised, nod, shake head, "
                    "look or turn left and right, tilt, blink, calm, lively and degrees of them; models that read understand any words.",
                ),
                DrivingWire.Input("driving", optional=True, tooltip=BEFORE),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Only for models that read prompts: UMT5 from Load CLIP, type wan. kf-tiny needs none."
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="What guidance leads away from, all the time; used only where `guidance` of Knot Forcing Sampler is above 1, "
                    "as plain Wan 2.1 has it. Empty: the model's own, of plain Wan the one that its authors take.",
                ),
            ],
            outputs=[DrivingWire.Output(display_name="driving", tooltip=DRIVING_OUT)],
        )

    @classmethod
    def execute(cls, script: str, driving: Driver | None = None, clip=None, negative_prompt: str = "") -> io.NodeOutput:
        before = driving or Driver()
        negative = negative_prompt.strip() or before.driving.negative_prompt
        said = replace(before.driving, script=script, negative_prompt=negative)
        return io.NodeOutput(replace(before, driving=said, clip=clip or before.clip))


def one_image(images: torch.Tensor) -> torch.Tensor:
    """The frame [h, w, 3] of an IMAGE that holds one. Raises KnotForcingError."""
    if len(images) != 1:
        raise KnotForcingError(f"The portrait came as a batch of {len(images)} images, and one is needed. Choose one with ImageFromBatch.")
    return images[0, ..., :3].float().cpu()


def heard(audio: dict) -> AudioArray:
    """An AUDIO that holds one sound. Raises KnotForcingError."""
    waveform = audio["waveform"]
    if len(waveform) != 1:
        raise KnotForcingError(f"The AUDIO is a batch of {len(waveform)} sounds, and one is needed. Connect a single one.")
    return AudioArray(waveform[0].float().cpu().numpy(), int(audio["sample_rate"]))


def _fitting(name: str, size: int) -> int:
    step = 2 * SPATIAL_STRIDE
    if size % step:
        raise KnotForcingError(
            f"A {name} of {size} pixels does not fit: it must be a multiple of {step}. "
            f"Set {round(size / step) * step}, or 0 for the model's own."
        )
    return size


NODES = [EncodeReferenceAnchor, AudioConditioning, PoseConditioning, ExpressionAndMotion, ScriptNode]
