"""Example Portrait & Voice: what comes with the pack, so that a first run needs no file of one's own.

A workflow cannot bring images and sounds along; this node can. The head's movement is drawn here, from angles.
"""

import numpy as np
import torch
from comfy_api.latest import io

from ..kf_core.checkpoints.load import bundled
from ..kf_core.conditioning.pose import HeadAngles
from ..kf_core.media.image import read_image
from ..kf_core.media.sound import SoundFile
from ..kf_core.timeline import PixelSpan
from .loaders import CATEGORY

SAMPLE_RATE = 16000  # what the bundled voice was recorded at
POSE_FPS, POSE_SIZE = 16, 192  # frames a second, as Pose Conditioning expects them unless told otherwise; pixels
PORTRAITS = {"Mia": "example-portrait.png", "Zuri": "example-portrait-zuri.png", "Tom": "example-portrait-tom.png"}
MOVEMENT = (  # seconds, yaw, pitch, roll in degrees: about a look to one side, to the other, a nod, a tilt each way
    (0.0, 0.0, 0.0, 0.0),
    (1.2, -18.0, 0.0, -3.0),
    (2.6, 18.0, 0.0, 3.0),
    (3.6, 0.0, 0.0, 0.0),
    (4.1, 0.0, 12.0, 0.0),
    (4.6, 0.0, -6.0, 0.0),
    (5.2, 0.0, 0.0, 0.0),
    (6.4, -8.0, 0.0, 10.0),
    (8.0, 8.0, 0.0, -10.0),
    (9.2, 0.0, 8.0, 0.0),
    (10.2, 0.0, 0.0, 0.0),
)


class Example(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingExample",
            display_name="Example Portrait & Voice",
            category=CATEGORY,
            description="Cartoon portraits, a spoken sentence and a moving head, to try everything with. They come with the pack; "
            "drop your own image and sound on the canvas and connect them instead.",
            search_aliases=["demo", "sample", "test portrait", "test audio", "example pose"],
            inputs=[
                io.Combo.Input(
                    "face", options=list(PORTRAITS), default="Mia", optional=True, tooltip="Which of the three drawn faces to show."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="portrait", tooltip="A drawn face. To Encode Reference Anchor, or Portrait Crop."),
                io.Audio.Output(display_name="voice", tooltip="A spoken voice of 11 seconds. To Audio Conditioning."),
                io.Image.Output(
                    display_name="pose_images",
                    tooltip="A head that turns, nods and tilts as long as the voice lasts, 16 frames a second. To Pose Conditioning.",
                ),
            ],
        )

    @classmethod
    def execute(cls, face: str = "Mia") -> io.NodeOutput:
        portrait = read_image(bundled(PORTRAITS[face]))[None]
        voice = np.concatenate(list(SoundFile(bundled("example-voice.wav")).blocks(SAMPLE_RATE))).T
        sound = {"waveform": torch.from_numpy(voice)[None], "sample_rate": SAMPLE_RATE}
        return io.NodeOutput(portrait, sound, moving_head(round(voice.shape[1] / SAMPLE_RATE * POSE_FPS)))


def moving_head(images: int) -> torch.Tensor:
    """The movement in OpenPose's colours: [images, h, w, 3]."""
    movement, seconds = HeadAngles(keys=MOVEMENT), range(0, images, POSE_FPS)  # drawn by the second: drawing takes much memory
    spans = [PixelSpan(start, min(start + POSE_FPS, images)) for start in seconds]
    return torch.cat([movement.between(span, POSE_FPS, POSE_SIZE, POSE_SIZE).movedim(1, -1) for span in spans])


NODES = [Example]
