"""One image to look at: rows of video, a few moments each, labelled. Numbers are believed after this has been seen."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP, _INK, _PAPER = 4, (40, 40, 40), (250, 250, 248)


def contact_sheet(
    rows: Mapping[str, Tensor],
    *,
    fps: float,
    columns: int = 10,
    moments: Sequence[float] | None = None,
    side: int = 128,
    headings: Sequence[str] | None = None,
) -> Image.Image:
    """Rows of videos [f, h, w, 3] RGB 0..1 under their names, at the same moments (seconds); by default spread over the shortest one.

    A row that is shorter than a moment leaves it blank. Images are scaled so that their longer side is `side` pixels. `headings` of the
    columns, where they are not to be their moments."""
    if not rows or any(not len(video) for video in rows.values()):
        raise ValueError("a contact sheet needs at least one row, and an image in each")
    if moments is None:
        shortest = min(len(video) for video in rows.values())
        moments = [(shortest - 1) * k / max(1, columns - 1) / fps for k in range(min(columns, shortest))]
    font = ImageFont.load_default(size=12)
    label_width = max(int(font.getlength(name)) for name in rows) + 3 * _GAP
    sizes = [_fit(video, side) for video in rows.values()]
    column_width = max(width for width, _ in sizes) + _GAP
    heights = [height + _GAP for _, height in sizes]
    head = 12 + 3 * _GAP
    sheet = Image.new("RGB", (label_width + column_width * len(moments), head + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, heading in enumerate(headings or [f"{seconds:.2f} s" for seconds in moments]):
        draw.text((label_width + column * column_width, _GAP), heading, fill=_INK, font=font)
    top = head
    for (name, video), size, height in zip(rows.items(), sizes, heights, strict=True):
        draw.text((_GAP, top + height // 2 - 8), name, fill=_INK, font=font)
        for column, seconds in enumerate(moments):
            index = round(seconds * fps)
            if index < len(video):
                sheet.paste(_image(video[index]).resize(size, Image.Resampling.LANCZOS), (label_width + column * column_width, top))
        top += height
    return sheet


def _fit(video: Tensor, side: int) -> tuple[int, int]:
    height, width = video.shape[1:3]
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _image(image: Tensor) -> Image.Image:
    return Image.fromarray((image.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy())
