"""SVG to PNG: see the package's docstring."""

import argparse
import io
from pathlib import Path

from PIL import Image

parser = argparse.ArgumentParser(description="Rasterise the avatars that draw.mjs wrote.")
parser.add_argument("--svg", type=Path, required=True)
parser.add_argument("--out", type=Path, required=True)
given = parser.parse_args()

import resvg_py  # noqa: E402  a judge's tool, not the laboratory's

given.out.mkdir(parents=True, exist_ok=True)
for file in sorted(given.svg.glob("*.svg")):
    drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=file.read_text())))).convert("RGBA")
    flat = Image.new("RGB", drawn.size, "white")
    flat.paste(drawn, mask=drawn.getchannel("A"))
    flat.save(given.out / f"{file.stem}.png")
