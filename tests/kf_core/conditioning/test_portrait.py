"""A portrait covers the model's frame, keeps its upper part, and is refused or advised on in words."""

import pytest
import torch
from skimage import data, filters

from kf_core.conditioning.portrait import HEAD_AND_SHOULDERS, LARGE_BLOW_UP, advice_on, advice_on_face, livetalk_portrait, prepare_portrait
from kf_core.errors import KnotForcingError


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:256, 100:356]).float() / 255


def rows(height: int, width: int) -> torch.Tensor:
    """An image whose red says how far down, and whose green how far right: [h, w, 3]."""
    down, right = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((down, right, torch.zeros_like(down)), dim=-1)


@pytest.mark.parametrize("size", [(128, 128), (832, 480), (96, 160)])
@pytest.mark.parametrize("source", [(300, 200), (200, 300), (64, 64)])
def test_the_image_covers_the_frame_without_being_stretched(size, source):
    prepared = prepare_portrait(rows(*source), *size)
    assert prepared.shape == (1, 3, 1, size[1], size[0]) and 0 <= prepared.min() and prepared.max() <= 1
    down = (prepared[0, 0, 0, -8, 8] - prepared[0, 0, 0, 8, 8]).item() * (source[0] - 1) / (size[1] - 16)
    right = (prepared[0, 1, 0, 8, -8] - prepared[0, 1, 0, 8, 8]).item() * (source[1] - 1) / (size[0] - 16)
    assert down == pytest.approx(right, rel=0.03)  # source pixels to a pixel, both ways


def test_a_tall_image_keeps_its_upper_part():
    prepared = prepare_portrait(rows(300, 100), 100, 100)[0, 0, 0]
    assert prepared[0].mean().item() == pytest.approx(50 / 300, abs=0.01)  # a quarter of the 200 rows that are cut
    wide = prepare_portrait(rows(100, 300), 100, 100)[0, 1, 0]
    assert wide[:, 0].mean().item() == pytest.approx(100 / 300, abs=0.01)


def test_a_image_of_the_right_size_is_not_touched(photograph):
    assert torch.equal(prepare_portrait(photograph, 256, 256)[0, :, 0].permute(1, 2, 0), photograph)


def test_fine_detail_is_averaged_not_skipped():
    stripes = (torch.arange(512) % 2).float()[None, :, None].expand(512, -1, 3)
    assert prepare_portrait(stripes, 64, 64).std() < 0.05


def test_livetalk_cuts_the_middle():
    prepared = livetalk_portrait(rows(300, 100), 50, 50)[0, 0, 0]
    assert prepared.mean().item() == pytest.approx(0.5, abs=0.01)
    assert livetalk_portrait(rows(333, 217), 512, 512).shape == (1, 3, 1, 512, 512)


@pytest.mark.parametrize(
    ("size", "sentence"), [((200, 8000), "is 40 times as wide as high"), ((900, 100), "9 times as high"), ((8, 8), "only 8x8")]
)
def test_a_hopeless_image_is_refused_in_words(size, sentence):
    with pytest.raises(KnotForcingError, match=sentence):
        prepare_portrait(rows(*size), 128, 128)


def test_numbers_that_are_none_are_refused(photograph):
    broken = photograph.clone()
    broken[3, 3, 0] = torch.nan
    with pytest.raises(KnotForcingError, match="no numbers"):
        prepare_portrait(broken, 128, 128)


def test_a_good_photograph_gets_no_advice(photograph):
    assert advice_on(photograph, 128, 128) == [] and advice_on(photograph, 256, 256) == []


def test_advice_names_what_is_wrong(photograph):
    blurred = torch.from_numpy(filters.gaussian(photograph.numpy(), 4, channel_axis=-1))
    assert "blurred" in advice_on(blurred, 256, 256)[0]
    assert "one even colour" in advice_on(torch.full((256, 256, 3), 0.5), 128, 128)[0]
    assert "enlarged 4.0 times" in advice_on(photograph[:64, :64], 256, 256)[0]
    assert "cut away" in advice_on(photograph[:, :100], 256, 256)[-1]


@pytest.mark.parametrize("height", [128, 480, 832])
def test_a_face_is_small_where_head_and_shoulders_of_it_would_be_enlarged_much(height):
    """It is the face that is looked at, in the image as it was given, and not how much is cut out round it."""
    least = next(face for face in range(1, height) if not advice_on_face(face, height))
    assert height / (HEAD_AND_SHOULDERS * least) <= LARGE_BLOW_UP < height / (HEAD_AND_SHOULDERS * (least - 1))
    said = advice_on_face(least - 1, height)
    assert len(said) == 1 and f"{least - 1} pixels high" in said[0] and f"of {least} or more" in said[0]


def test_advice_calls_the_image_what_it_is(photograph):
    assert advice_on(photograph[:64, :64], 256, 256, "cut")[0].startswith("The cut is small (64x64)")


@pytest.mark.reference
@pytest.mark.parametrize("size", [(90, 71), (71, 90), (123, 64), (64, 64), (101, 201), (64, 97)])
def test_livetalk_cuts_as_its_authors_do(size):
    """Their `resize_pad`, of which only a line of black is left out where rounding makes the image too small by one."""
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(3))
    scale = max(64 / size[0], 48 / size[1])
    resized = transforms.Resize(size=[int(size[0] * scale), int(size[1] * scale)])(image)
    high, wide = 64 - resized.shape[1], 48 - resized.shape[2]
    padded = torch.nn.functional.pad(resized, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
    assert (livetalk_portrait(image.permute(1, 2, 0), 48, 64)[0, :, 0] - padded).abs().max() < 1e-5
