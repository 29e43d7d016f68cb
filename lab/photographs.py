"""Licensed photographs that Python packages ship, in one shard: for backgrounds, and so that an autoencoder meets real light and texture.

`LICENSED` is the whole list, each with its licence and where that is stated. The astronaut of scikit-image is what we are judged by, and
Grace Hopper of matplotlib is kept as a second judge: neither is here, nor may any cut of them be. Images whose packages state no
licence are not here either: scikit-image's motorcycle, its 25-pixel faces, coins, ihc.

    python -m lab.photographs --out shards
"""

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from .shards import Shard, write_shard


@dataclass(frozen=True)
class Photograph:
    package: str
    path: str  # inside the package
    licence: str
    stated: str  # where the licence is stated


_SKIMAGE = "docstring of skimage.data."
LICENSED = (
    Photograph("skimage", "data/chelsea.png", "CC0 (Stefan van der Walt)", _SKIMAGE + "chelsea"),
    Photograph("skimage", "data/coffee.png", "CC0 (Rachel Michetti)", _SKIMAGE + "coffee"),
    Photograph("skimage", "data/camera.png", "CC0 (Lav Varshney)", _SKIMAGE + "camera"),
    Photograph("skimage", "data/rocket.jpg", "public domain (SpaceX)", _SKIMAGE + "rocket"),
    Photograph("skimage", "data/hubble_deep_field.jpg", "public domain (NASA)", _SKIMAGE + "hubble_deep_field"),
    Photograph("skimage", "data/retina.jpg", "CC0 (Wikimedia)", _SKIMAGE + "retina"),
    Photograph("skimage", "data/brick.png", "CC0 (CC0Textures)", _SKIMAGE + "brick"),
    Photograph("skimage", "data/grass.png", "CC0 (CC0Textures)", _SKIMAGE + "grass"),
    Photograph("skimage", "data/gravel.png", "CC0 (CC0Textures)", _SKIMAGE + "gravel"),
    Photograph("sklearn", "datasets/images/china.jpg", "CC BY 2.0 (danielbuechele)", "sklearn/datasets/images/README.txt"),
    Photograph("sklearn", "datasets/images/flower.jpg", "CC BY 2.0 (vultilion)", "sklearn/datasets/images/README.txt"),
)
NEVER = ("astronaut", "grace_hopper")  # the judges


def gather(out: Path) -> Shard:
    """Write the shard of all photographs whose packages are installed; those that are not are named."""
    tensors, known, missing = {}, {}, []
    for photograph in LICENSED:
        spec = find_spec(photograph.package)
        file = Path(spec.origin).parent / photograph.path if spec else None
        if file is None or not file.exists():
            missing.append(f"{photograph.package}/{photograph.path}")
            continue
        name = file.stem
        assert name not in NEVER
        tensors[name] = np.asarray(Image.open(file).convert("RGB"))
        known[name] = {"licence": photograph.licence, "stated": photograph.stated, "package": photograph.package}
    if not tensors:
        raise ValueError(f"none of the licensed photographs was found: install {sorted({p.package for p in LICENSED})}")
    print(f"{len(tensors)} photographs" + (f"; not installed: {', '.join(missing)}" if missing else ""))
    return write_shard(out / "photographs.safetensors", tensors, {"world": "photographs", "photographs": known})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Gather the licensed photographs that installed packages ship.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    gather(parser.parse_args().out)
