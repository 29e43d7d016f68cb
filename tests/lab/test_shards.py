"""Shards: whole or not there, and what is labelled lies where it is drawn."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lab.avatars import avatars, hand_points
from lab.feeder import Feeder
from lab.framing import TIGHT, cut_to
from lab.image import cut_photograph, occlude, randomise
from lab.mix import BatchKind, Mix
from lab.photographs import LICENSED, NEVER
from lab.points import POINTS, mirrored
from lab.shards import feature_boxes, find_shards, write_shard


def a_shard(path, clips=3, frames=5, size=32, value=100):
    rng = np.random.default_rng(0)
    pixels = np.full((clips, frames, size, size, 3), value, np.uint8) + rng.integers(0, 50, (clips, frames, size, size, 3)).astype(np.uint8)
    points = np.broadcast_to(np.array([[20, 12], [12, 12], [16, 22]], np.float32), (clips, frames, 3, 2))
    return write_shard(path, {"frames": pixels, "points": points}, {"world": "heads", "points": ["left_eye", "right_eye", "mouth"]})


def test_a_shard_gives_back_what_was_written(tmp_path):
    shard = a_shard(tmp_path / "heads-1.safetensors")
    assert shard.shape() == (3, 5, 32, 32, 3)
    assert (shard.clip(1, 2, 3) == shard.all()["frames"][1, 2:5]).all()


def test_a_shard_without_its_json_is_not_there_yet(tmp_path):
    a_shard(tmp_path / "heads-1.safetensors")
    a_shard(tmp_path / "heads-2.safetensors")
    (tmp_path / "heads-2.json").unlink()
    assert [shard.path.stem for shard in find_shards(tmp_path)] == ["heads-1"]


def test_boxes_lie_round_eyes_and_mouth():
    points = np.array([[[84, 50], [44, 50], [64, 92]]], np.float32)
    eyes, mouth = feature_boxes(points, ["left_eye", "right_eye", "mouth"])

    def inside(box, x, y):
        return box[0] < x < box[2] and box[1] < y < box[3]

    assert inside(eyes[0, 0], 84, 50) and inside(eyes[0, 1], 44, 50) and inside(mouth[0, 0], 64, 92)
    assert not inside(mouth[0, 0], 64, 50)


def test_the_same_generator_draws_the_same_batches(tmp_path):
    a_shard(tmp_path / "heads-1.safetensors")
    kind = BatchKind(share=1, frames=3, clips=2, side=16)
    first, second = (Mix(tmp_path, {"heads-*": 1.0}).draw(kind, np.random.default_rng(3)) for _ in range(2))
    assert first.frames.shape == (2, 3, 3, 16, 16) and first.features.shape == (2, 1, 3, 16, 16)
    assert torch.equal(first.frames, second.frames)


def choose():
    return 5, BatchKind(share=1, frames=1, clips=2, side=16)


def test_new_shards_are_found_when_a_feeder_is_refreshed(tmp_path):
    a_shard(tmp_path / "heads-1.safetensors")
    feeder, shares = Feeder(tmp_path, choose), {"heads-*": 0.5, "drawn-*": 0.5}
    assert feeder.refresh(shares, 0.5) == {"heads-*": 3, "photographs": 0}
    a_shard(tmp_path / "drawn-1.safetensors")
    assert feeder.refresh(shares, 0.5) == {"heads-*": 3, "drawn-*": 3, "photographs": 0}


def test_batches_that_are_drawn_ahead_are_those_that_would_be_drawn_in_turn(tmp_path):
    a_shard(tmp_path / "heads-1.safetensors")
    made = []
    for processes in (0, 1):
        counter = iter(range(100))
        feeder = Feeder(tmp_path, lambda counter=counter: (next(counter), choose()[1]), processes)
        feeder.refresh({"heads-*": 1.0}, 0.7)
        made.append([feeder.next().frames for _ in range(3)])
        feeder.close()
    assert all(torch.equal(*pair) for pair in zip(*made, strict=True))
    assert not torch.equal(made[0][0], made[0][1])


def test_short_clips_are_never_drawn_for_long_ones(tmp_path):
    a_shard(tmp_path / "heads-1.safetensors", frames=4, value=0)
    a_shard(tmp_path / "drawn-1.safetensors", frames=9, value=200)
    mix, rng = Mix(tmp_path, {"heads-*": 0.9, "drawn-*": 0.1}, strength=0.0), np.random.default_rng(0)
    assert all(mix.draw(BatchKind(1, 9, 1, 32), rng).frames.mean() > 0.6 for _ in range(8))


def test_photographs_are_cut_and_glide(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (120, 90, 3)).astype(np.uint8)
    write_shard(tmp_path / "photographs.safetensors", {"grass": image}, {"world": "photographs"})
    mix = Mix(tmp_path, {"photographs": 1.0})
    assert mix.draw(BatchKind(1, 5, 2, 24), np.random.default_rng(0)).frames.shape == (2, 3, 5, 24, 24)
    assert cut_photograph(image, 40, np.random.default_rng(1)).shape == (40, 40, 3)


def test_a_image_is_randomised_alike_in_all_frames_and_stays_in_range():
    frame = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    clip = frame.expand(3, 4, 24, 24).clone()
    made = [randomise(clip.clone(), np.random.default_rng(seed)) for seed in range(12)]
    assert all(0 <= value.min() and value.max() <= 1 for value in made)
    quiet = [value for value in made if torch.equal(value[:, 0], value[:, 3])]  # without the noise, which is of each frame
    assert len(quiet) > 6 and all(not torch.equal(value[:, 0], frame[:, 0]) for value in quiet)
    assert torch.allclose(randomise(clip.clone(), np.random.default_rng(0), strength=0.0), clip, atol=1e-5)


def test_an_occluder_covers_some_of_a_image_and_leaves_the_rest():
    frame, other = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 220, np.uint8)
    covered = [float((occlude(frame, other, np.random.default_rng(seed)) != 40).mean()) for seed in range(20)]
    assert 0.01 < np.mean(covered) < 0.3 and max(covered) < 0.6


def test_no_judge_is_among_the_photographs():
    names = [photograph.path for photograph in LICENSED]
    assert not any(judge in name for judge in NEVER for name in names)
    assert all(photograph.licence.startswith(("CC0", "CC BY", "public domain")) for photograph in LICENSED)


def test_a_portrait_is_cut_to_level_eyes_at_the_stated_place():
    image = np.zeros((200, 300, 3), np.uint8)
    left, right = (170, 110), (130, 90)  # tilted; the person's left is at the right
    for (x, y), channel in ((left, 0), (right, 1)):
        image[y - 4 : y + 5, x - 4 : x + 5, channel] = 255
    cut = cut_to(image, left, right, TIGHT, 128).astype(float)

    def centre(channel):
        return np.array([(cut[..., channel] * grid).sum() / cut[..., channel].sum() for grid in np.mgrid[0:128, 0:128][::-1]])

    (lx, ly), (rx, ry) = centre(0) + 0.5, centre(1) + 0.5
    assert abs(ly - ry) < 0.5 and abs((ly + ry) / 2 - 0.40 * 128) < 0.7
    assert abs((lx - rx) - 128 / 3.3) < 0.7 and abs((lx + rx) / 2 - 64) < 0.7


def test_mirroring_twice_changes_nothing():
    order = mirrored()
    assert [order[k] for k in order] == list(range(len(POINTS)))
    assert POINTS[order[POINTS.index("left_eye")]] == "right_eye" and POINTS[order[POINTS.index("chin")]] == "chin"


def test_what_is_known_of_a_shard_is_plain_json(tmp_path):
    a_shard(tmp_path / "heads-1.safetensors")
    assert json.loads((tmp_path / "heads-1.json").read_text())["world"] == "heads"


def test_a_folder_without_shards_is_told(tmp_path):
    with pytest.raises(ValueError, match="no shard"):
        Mix(tmp_path, {"heads-*": 1.0})


def test_avatars_are_cut_by_the_points_that_were_set_by_hand(tmp_path):
    points = hand_points()
    assert len(points) >= 12 and len({name.rsplit("-", 1)[0] for name in points}) >= 4
    assert all(each["left_eye"][0] > each["right_eye"][0] + 30 for each in points.values())  # the person's left is at the right
    image = np.zeros((512, 512, 3), np.uint8)
    x, y = np.array(points["micah-Ada"]["left_eye"]) * 2
    image[y - 6 : y + 7, x - 6 : x + 7] = 255
    Image.fromarray(image).save(tmp_path / "micah-Ada.png")
    cut = avatars(tmp_path)
    assert list(cut) == ["micah-Ada"]
    rows, columns = np.nonzero(cut["micah-Ada"][..., 0] > 128)
    assert abs(rows.mean() + 0.5 - TIGHT.eye_line * 128) < 1 and abs(columns.mean() + 0.5 - 64 * (1 + TIGHT.eye_distance)) < 1
