"""Portrait Crop: head and shoulders out of an image, and what is wrong with it as a portrait, in words.

A face is looked for by whoever can: a detector's box comes over a wire. Without one nothing is claimed about a face.
"""

from typing import Any

import torch
from comfy_api.latest import io

from ..kf_core.conditioning.portrait import HEAD_AND_SHOULDERS, advice_on, advice_on_face, validate_portrait
from ..kf_core.errors import KnotForcingError
from .conditioning import one_image
from .host import models, preview
from .loaders import CATEGORY

FACE_AT = 0.45  # of the crop's height, from the top: where the middle of the face comes


class PortraitCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KnotForcingPortraitCrop",
            display_name="Portrait Crop",
            category=CATEGORY,
            description="Cuts head and shoulders out of an image in the shape the model wants, and says what is wrong with it.",
            search_aliases=["face crop", "head crop", "portrait check"],
            inputs=[
                io.Image.Input("image", tooltip="One image with the person in it."),
                io.Model.Input("model", tooltip="The generator from Load KF Model: it says which shape it wants."),
                io.BoundingBox.Input(
                    "face",
                    optional=True,
                    socketless=False,
                    force_input=True,
                    tooltip="Where the face is, in pixels, from a face detector. None: the whole image, and a face is not checked.",
                ),
                io.Float.Input(
                    "margin",
                    default=HEAD_AND_SHOULDERS,
                    min=1.0,
                    max=6.0,
                    step=0.1,
                    tooltip="With `face`: how many times as high as the face the cut is. 1 is the face alone, 2.2 head and shoulders.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="portrait", tooltip="To Encode Reference Anchor."),
                io.String.Output(display_name="report", tooltip="What was found, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image, model, margin: float, face: Any = None) -> io.NodeOutput:
        card, image = models.card_of(model), one_image(image)
        if face is None:
            found, advice, name = "Face: not checked (connect a face detector's box to `face`).", [], "portrait"
        else:
            box = _box(face, image)
            image, name = cropped(image, box, margin, card.width / card.height), "cut"
            found = f"Face: {box[2]}x{box[3]} pixels, {box[3] / image.shape[0]:.0%} of the cut's height."
            advice = advice_on_face(box[3], card.height)
        validate_portrait(image)
        advice += advice_on(image, card.width, card.height, name)
        said = [found, *(advice or ["Nothing is wrong with size, shape, contrast and sharpness."])]
        report = "\n".join(said)
        preview.set_status(cls.hidden.unique_id, report)
        return io.NodeOutput(image[None], report)


def cropped(image: torch.Tensor, box: tuple[int, int, int, int], margin: float, aspect: float) -> torch.Tensor:
    """A part of `image` [h, w, 3] of this aspect round the face, moved rather than shrunk where the image ends."""
    height, width = image.shape[:2]
    x, y, box_width, box_height = box
    tall = min(height, round(margin * box_height), round(width / aspect))
    wide = min(width, round(tall * aspect))
    left = round(x + box_width / 2 - wide / 2)
    top = round(y + box_height / 2 - FACE_AT * tall)
    left, top = min(max(0, left), width - wide), min(max(0, top), height - tall)
    return image[top : top + tall, left : left + wide]


def _box(face: Any, image: torch.Tensor) -> tuple[int, int, int, int]:
    """x, y, width, height of the largest box there is. Raises KnotForcingError for none, or one outside the image."""
    boxes = [face] if isinstance(face, dict) else [box for part in face for box in (part if isinstance(part, list) else [part])]
    height, width = image.shape[:2]
    inside = [box for box in boxes if box["width"] > 0 and box["height"] > 0 and 0 <= box["x"] < width and 0 <= box["y"] < height]
    if not inside:
        raise KnotForcingError(f"No face was found in the image of {width}x{height}. Choose another image, or disconnect `face`.")
    best = max(inside, key=lambda box: box["width"] * box["height"])
    return tuple(round(best[side]) for side in ("x", "y", "width", "height"))


NODES = [PortraitCrop]
