"""Judges that nobody here trained: real faces of two packages, and dlib's face embedding. Measures only; nothing of it is learned from.

The given photograph is scikit-image's astronaut, cut to the model's framing. dlib's landmark model learned from images whose licence
excludes commercial use: it stays in the laboratory.

    pip install dlib-bin face_recognition_models "setuptools<81" scikit-image
    python -m lab.judge --shard shards/heads-0001.safetensors       are they faces to dlib, and are two people two people?
"""

import argparse
import json
import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from .framing import TIGHT, WIDE, Framing, cut_to
from .shards import Shard

ASTRONAUT_EYES = ((246.8, 104.0), (203.2, 101.5))  # left, right; x y; middles of dlib's landmarks


@dataclass(frozen=True)
class Portrait:
    """A photograph cut to a framing, and the embedding of the whole photograph."""

    name: str
    frame: np.ndarray  # [h, w, 3] uint8
    embedding: np.ndarray | None  # [128]; None without dlib


@cache
def _dlib():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import dlib
            import face_recognition_models as models
        except ImportError:
            return None
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(models.pose_predictor_model_location()),
        dlib.face_recognition_model_v1(models.face_recognition_model_location()),
    )


def landmarks(frame: np.ndarray, side: int = 512) -> tuple[np.ndarray, np.ndarray] | None:
    """dlib's 68 points [68, 2] in pixels of `frame`, and its embedding [128], of the surest face; None: no face, or no dlib."""
    if _dlib() is None:
        return None
    detector, shape_of, embed = _dlib()
    scale = side / min(frame.shape[:2])
    large = Image.fromarray(frame).resize((round(frame.shape[1] * scale), round(frame.shape[0] * scale)), Image.Resampling.BICUBIC)
    pixels = np.asarray(large)
    boxes, scores, _ = detector.run(pixels, 0, -0.3)
    if not boxes:
        return None
    shape = shape_of(pixels, boxes[int(np.argmax(scores))])
    points = np.array([(p.x, p.y) for p in shape.parts()]) / scale
    return points, np.array(embed.compute_face_descriptor(pixels, shape))


def distance(frame: np.ndarray, embedding: np.ndarray | None) -> float | None:
    """How far dlib finds the face in `frame` from another; below .6 it is the same person. None: no face, or no dlib."""
    found = landmarks(frame)
    return None if found is None or embedding is None else float(np.linalg.norm(found[1] - embedding))


@cache
def astronaut(framing: Framing = TIGHT, size: int = 128) -> Portrait:
    """The given photograph in a framing."""
    import skimage.data

    return _portrait("astronaut", skimage.data.astronaut(), ASTRONAUT_EYES, framing, size)


@cache
def grace_hopper(framing: Framing = TIGHT, size: int = 128) -> Portrait | None:
    """A second real face, public domain (US Navy), from matplotlib's sample data; None where that or dlib is missing."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib import cbook

    image = np.asarray(Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB"))
    found = landmarks(image)
    if found is None:
        return None
    eyes = found[0][42:48].mean(0), found[0][36:42].mean(0)
    return _portrait("grace hopper", image, tuple(tuple(map(float, eye)) for eye in eyes), framing, size)


def _portrait(name: str, image: np.ndarray, eyes, framing: Framing, size: int) -> Portrait:
    found = landmarks(image)
    return Portrait(name, cut_to(image, *eyes, framing, size), None if found is None else found[1])


def portraits() -> dict[str, Portrait]:
    """All judges: the astronaut tight and wide, the second face where it is to be had."""
    found = {"astronaut": astronaut(TIGHT), "astronaut_wide": astronaut(WIDE), "grace_hopper": grace_hopper(TIGHT)}
    return {name: portrait for name, portrait in found.items() if portrait is not None}


def variety(shard: Shard, people: int = 60) -> dict[str, float]:
    """What dlib makes of a shard's people, from two frames of each: share of frames with a face, distances of one and of two people."""
    clips, length, *_ = shard.shape()
    found = [[landmarks(shard.clip(clip, at, 1)[0]) for at in (0, length - 1)] for clip in range(min(clips, people))]
    met = [[face[1] for face in faces if face is not None] for faces in found]
    same = [float(np.linalg.norm(faces[0] - faces[1])) for faces in met if len(faces) == 2]
    first = [faces[0] for faces in met if faces]
    two = [float(np.linalg.norm(a - b)) for i, a in enumerate(first) for b in first[:i]]
    report = {"frames with a face": np.mean([face is not None for faces in found for face in faces]), "people": len(first)}
    report |= {"same person, median": np.median(same) if same else np.nan, "two people, median": np.median(two)}
    return {name: round(float(value), 3) for name, value in (report | {"pairs below .6": np.mean(np.array(two) < 0.6)}).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Let dlib look at the people of a shard.")
    parser.add_argument("--shard", type=Path, required=True)
    path = parser.parse_args().shard
    print(json.dumps(variety(Shard(path, json.loads(path.with_suffix(".json").read_text())))))
