"""Any image file becomes upright, opaque RGB, and what is not one is refused in a sentence."""

import importlib.util
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image, features

from kf_core.errors import KnotForcingError
from kf_core.media.image import BACKDROP, read_image

from ...cases import case


@pytest.fixture
def ramp() -> np.ndarray:
    """[6, 9, 3]: grey from black at the left to white at the right."""
    return np.repeat(np.linspace(0, 255, 9).round().astype(np.uint8)[None, :, None], 6, axis=0).repeat(3, axis=2)


def left_to_right(image: torch.Tensor) -> bool:
    return bool((image[:, 1:].mean((0, 2)) > image[:, :-1].mean((0, 2))).all())


def save(tmp_path, image: Image.Image, name: str, **options) -> torch.Tensor:
    image.save(tmp_path / name, **options)
    return read_image(tmp_path / name)


def test_rgb_comes_back_as_it_is(tmp_path, ramp):
    image = save(tmp_path, Image.fromarray(ramp), "a.png")
    assert image.dtype == torch.float32 and np.array_equal((image.numpy() * 255).round(), ramp)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "YCbCr", "F", "I;16"])
def test_every_mode_keeps_black_and_white_where_they_are(tmp_path, ramp, mode):
    image = Image.fromarray(ramp)
    if mode == "I;16":
        image = Image.fromarray(ramp[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(ramp[..., 0].astype(np.float32) / 255)
    else:
        image = image.convert("L").convert(mode) if mode in ("1", "LA", "P") else image.convert(mode)
    image = save(tmp_path, image, "a.tiff")
    assert image.shape == (6, 9, 3)
    assert image[:, 0].max() < 0.03 and image[:, -1].min() > 0.97
    assert mode == "1" or left_to_right(image)


def test_a_dark_16_bit_image_stays_dark(tmp_path):
    image = save(tmp_path, Image.fromarray(np.full((4, 4), 200, np.uint16)), "a.png")
    assert image.max() < 0.01


def test_a_cmyk_jpeg_keeps_its_colour(tmp_path):
    image = save(tmp_path, Image.new("RGB", (32, 32), (200, 120, 90)).convert("CMYK"), "a.jpg", quality=95)
    assert (image.mean((0, 1)) * 255 - torch.tensor([200, 120, 90])).abs().max() < 6


def test_a_image_is_turned_as_its_camera_says(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise: what was left is now on top
    image = save(tmp_path, Image.fromarray(ramp), "a.png", exif=exif)
    assert image.shape == (9, 6, 3) and left_to_right(image.transpose(0, 1))


def test_transparent_parts_show_a_neutral_backdrop(tmp_path):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((0, 255, 0, 255), (0, 0, 4, 8))
    image = save(tmp_path, image, "a.png") * 255
    assert image[0, 0].tolist() == [0, 255, 0] and tuple(image[0, 7].round().int().tolist()) == BACKDROP


def test_an_animation_gives_its_first_frame(tmp_path):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    assert save(tmp_path, first, "a.gif", save_all=True, append_images=[second]).min() > 0.99


def test_what_is_no_image_is_refused_in_a_sentence(tmp_path, ramp):
    Image.fromarray(np.tile(ramp, (20, 20, 1))).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("a portrait of a lady")
    (tmp_path / "empty.jpg").touch()
    sentences = {
        "none.png": "does not exist",
        "text.png": "not an image",
        "empty.jpg": "not an image",
        "cut.png": "cut off",
        ".": "is a folder",
    }
    for name, sentence in sentences.items():
        with pytest.raises(KnotForcingError, match=sentence):
            read_image(tmp_path / name)


# ---- colours as their profile says ----


def colours(side: int = 32) -> np.ndarray:
    """[side, side, 3]: colours that fit into any usual colour space."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    return np.stack((90 + 110 * x, 80 + 90 * y, 110 + 60 * (1 - x)), axis=-1).round().astype(np.uint8)


def profile_with(primaries: tuple[float, ...], gamma: float) -> bytes:
    """A display's profile, as a camera or a telephone embeds it: a colour for each channel [3 x 3 XYZ, D50] and a curve."""

    def number(value):
        return round(value * 65536).to_bytes(4, "big", signed=True)

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    curve = b"curv\0\0\0\0\0\0\0\1" + round(gamma * 256).to_bytes(2, "big") + b"\0\0"
    text = b"desc\0\0\0\0\0\0\0\5test\0" + bytes(79)
    red, green, blue = (xyz(primaries[start : start + 3]) for start in (0, 3, 6))
    tags = {b"desc": text, b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"cprt": b"text\0\0\0\0none\0\0\0\0"}
    table, data, start = len(tags).to_bytes(4, "big"), b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + (start + len(data)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        data += value
    length = start + len(data)
    header = length.to_bytes(4, "big") + bytes(4) + b"\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return header + b"".join(map(number, (0.9642, 1.0, 0.8249))) + bytes(48) + table + data


P3 = (0.51512, 0.2412, -0.00105, 0.29198, 0.69225, 0.04189, 0.1571, 0.06657, 0.78407)
ADOBE = (0.60974, 0.31111, 0.01947, 0.20528, 0.62567, 0.06087, 0.14919, 0.06322, 0.74457)
PROPHOTO = (0.79767, 0.28804, 0.0, 0.13519, 0.71188, 0.0, 0.03134, 0.00009, 0.82491)
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]])


def encoded_in(primaries: tuple[float, ...], gamma: float, srgb: np.ndarray) -> np.ndarray:
    """The same colours as numbers of another space, by arithmetic."""
    value = srgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    own = linear @ SRGB_TO_XYZ.T @ np.linalg.inv(np.array(primaries).reshape(3, 3).T).T
    return (own.clip(0, 1) ** (1 / gamma) * 255).round().astype(np.uint8)


@pytest.mark.parametrize(("primaries", "gamma"), [(P3, 2.2), (ADOBE, 2.2), (PROPHOTO, 1.8)], ids=["p3", "adobe", "prophoto"])
@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "RGB"), ("png", "RGB"), ("png", "RGBA"), ("png", "P"), ("tiff", "RGB"), ("webp", "RGB")]
)
def test_colours_are_converted_from_the_profile_of_the_file(tmp_path, suffix, mode, primaries, gamma):
    icc = profile_with(primaries, gamma)
    image = Image.fromarray(encoded_in(primaries, gamma, colours()))
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    options = {"jpg": dict(quality=98, subsampling=0), "webp": dict(lossless=True)}.get(suffix, {})
    image = save(tmp_path, image, f"a.{suffix}", icc_profile=icc, **options).numpy() * 255
    assert np.abs(image - colours()).mean() < 2


def test_grey_is_converted_from_its_profile_and_lab_by_itself(tmp_path):
    from PIL import ImageCms

    lab = ImageCms.profileToProfile(
        Image.fromarray(colours()), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(save(tmp_path, lab, "a.tiff").numpy() * 255 - colours()).mean() < 2


@pytest.mark.parametrize("icc", [b"not a profile", profile_with(P3, 2.2)[:300], b""])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_profile_that_is_broken_or_of_another_kind_is_left_out(tmp_path, icc, mode):
    image = Image.fromarray(colours()).convert(mode)
    plain = save(tmp_path, image, "plain.tiff")
    assert torch.equal(save(tmp_path, image, "a.tiff", icc_profile=icc or None), plain)


# ---- large ones ----


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_large_image_is_shrunk_and_stays_upright(tmp_path, suffix, turned):
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    image = Image.fromarray(colours(200)).resize((400, 200))
    image.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    whole, small = (read_image(tmp_path / f"a.{suffix}", longest) for longest in (None, 100))
    assert small.shape == ((100, 50, 3) if turned else (50, 100, 3))
    expected = torch.nn.functional.interpolate(whole.movedim(-1, 0)[None], small.shape[:2], mode="area")[0].movedim(0, -1)
    assert (small - expected).abs().mean() < 0.01


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "F", "I;16"])
def test_every_mode_can_be_shrunk(tmp_path, ramp, mode):
    grey = np.repeat(np.repeat(ramp, 20, 0), 20, 1)  # [120, 180, 3]
    if mode == "I;16":
        image = Image.fromarray(grey[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey[..., 0].astype(np.float32) / 255)
    else:
        image = Image.fromarray(grey).convert("L").convert(mode) if mode in ("1", "LA", "P") else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.tiff")
    image = read_image(tmp_path / "a.tiff", longest=9)
    assert image.shape == (6, 9, 3) and image[:, 0].max() < 0.06 and image[:, -1].min() > 0.94


def test_transparent_parts_do_not_bleed_into_what_is_shrunk(tmp_path):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((0, 255, 0, 255), (0, 0, 33, 64))
    image.save(tmp_path / "a.png")
    edge = read_image(tmp_path / "a.png", longest=32)[16, 16] * 255
    assert edge[0] <= edge[2] + 2, "the red of what is not seen is not seen"


def test_a_jpeg_of_more_pixels_than_pillow_allows_is_unpacked_small(tmp_path, monkeypatch):
    Image.fromarray(colours(200)).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(colours(200)).save(tmp_path / "progressive.jpg", quality=95, progressive=True)
    Image.fromarray(colours(200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # 40,000 are twice as many as may be
    asked = []
    load = Image.Image.load
    monkeypatch.setattr(Image.Image, "load", lambda image: asked.append(image.size) or load(image))
    assert read_image(tmp_path / "a.jpg", longest=50).shape == (50, 50, 3)
    assert max(max(size) for size in asked) <= 50
    for name in ("a.png", "progressive.jpg"):
        with pytest.raises(KnotForcingError, match="too large to be opened safely"):
            read_image(tmp_path / name)


# ---- kinds that Pillow may not read ----


def test_a_kind_that_is_not_read_is_refused_by_name_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    starts = {"a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.jxl": b"\xff\x0a" + bytes(20)}
    words = {"a.heic": "HEIC.*pillow-heif.*JPEG", "a.jxl": "JPEG XL.*JPEG"}
    for name, sentence in words.items():
        (tmp_path / name).write_bytes(starts[name] + bytes(100))
        with pytest.raises(KnotForcingError, match=sentence):
            read_image(tmp_path / name)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path):
    assert np.abs(save(tmp_path, Image.fromarray(colours()), "a.avif", quality=95).numpy() * 255 - colours()).mean() < 3


# ---- the cases ----


@pytest.mark.parametrize("name", ["p3.jpg", "prophoto.jpg", "cmyk.jpg"])
def test_the_cases_with_a_profile_are_what_little_cms_makes_of_them(name):
    from PIL import ImageCms

    with Image.open(case(name)) as image:
        own = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        expected = np.asarray(ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB"))
        assert np.abs(np.asarray(image.convert("RGB"), float) - expected).mean() > 4, "without its profile it has other colours"
    assert np.abs(read_image(case(name)).numpy() * 255 - expected).mean() < 2


def test_the_case_of_an_iphones_image_is_opened_or_refused_by_name():
    if importlib.util.find_spec("pillow_heif"):
        assert read_image(case("real.heic")).std() > 0.01
    else:
        with pytest.raises(KnotForcingError, match="HEIC.*pillow-heif"):
            read_image(case("real.heic"))
