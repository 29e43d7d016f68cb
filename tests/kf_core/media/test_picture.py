"""Any picture file becomes upright, opaque RGB, and what is not one is refused in a sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from kf_core.errors import KnotForcingError
from kf_core.media.picture import BACKDROP, read_picture


@pytest.fixture
def ramp() -> np.ndarray:
    """[6, 9, 3]: grey from black at the left to white at the right."""
    return np.repeat(np.linspace(0, 255, 9).round().astype(np.uint8)[None, :, None], 6, axis=0).repeat(3, axis=2)


def left_to_right(picture: torch.Tensor) -> bool:
    return bool((picture[:, 1:].mean((0, 2)) > picture[:, :-1].mean((0, 2))).all())


def save(tmp_path, image: Image.Image, name: str, **options) -> torch.Tensor:
    image.save(tmp_path / name, **options)
    return read_picture(tmp_path / name)


def test_rgb_comes_back_as_it_is(tmp_path, ramp):
    picture = save(tmp_path, Image.fromarray(ramp), "a.png")
    assert picture.dtype == torch.float32 and np.array_equal((picture.numpy() * 255).round(), ramp)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "YCbCr", "F", "I;16"])
def test_every_mode_keeps_black_and_white_where_they_are(tmp_path, ramp, mode):
    image = Image.fromarray(ramp)
    if mode == "I;16":
        image = Image.fromarray(ramp[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(ramp[..., 0].astype(np.float32) / 255)
    else:
        image = image.convert("L").convert(mode) if mode in ("1", "LA", "P") else image.convert(mode)
    picture = save(tmp_path, image, "a.tiff")
    assert picture.shape == (6, 9, 3)
    assert picture[:, 0].max() < 0.03 and picture[:, -1].min() > 0.97
    assert mode == "1" or left_to_right(picture)


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    picture = save(tmp_path, Image.fromarray(np.full((4, 4), 200, np.uint16)), "a.png")
    assert picture.max() < 0.01


def test_a_cmyk_jpeg_keeps_its_colour(tmp_path):
    picture = save(tmp_path, Image.new("RGB", (32, 32), (200, 120, 90)).convert("CMYK"), "a.jpg", quality=95)
    assert (picture.mean((0, 1)) * 255 - torch.tensor([200, 120, 90])).abs().max() < 6


def test_a_picture_is_turned_as_its_camera_says(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: what was left is now on top
    picture = save(tmp_path, Image.fromarray(ramp), "a.png", exif=exif)
    assert picture.shape == (9, 6, 3) and left_to_right(picture.transpose(0, 1))


def test_transparent_parts_show_a_neutral_backdrop(tmp_path):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((0, 255, 0, 255), (0, 0, 4, 8))
    picture = save(tmp_path, image, "a.png") * 255
    assert picture[0, 0].tolist() == [0, 255, 0] and tuple(picture[0, 7].round().int().tolist()) == BACKDROP


def test_an_animation_gives_its_first_frame(tmp_path):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    assert save(tmp_path, first, "a.gif", save_all=True, append_images=[second]).min() > 0.99


def test_what_is_no_picture_is_refused_in_a_sentence(tmp_path, ramp):
    Image.fromarray(np.tile(ramp, (20, 20, 1))).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("a portrait of a lady")
    (tmp_path / "empty.jpg").touch()
    sentences = {
        "none.png": "does not exist",
        "text.png": "not a picture",
        "empty.jpg": "not a picture",
        "cut.png": "cut off",
        ".": "is a folder",
    }
    for name, sentence in sentences.items():
        with pytest.raises(KnotForcingError, match=sentence):
            read_picture(tmp_path / name)
