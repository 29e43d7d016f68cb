import pytest

from kf_core import timeline
from kf_core.timeline import LatentSpan, PixelSpan


def test_the_first_latent_frame_holds_one_frame_and_later_ones_four():
    assert [timeline.pixel_frames(n) for n in range(5)] == [0, 1, 5, 9, 13]
    assert timeline.pixels(LatentSpan(0, 1)) == PixelSpan(0, 1)
    assert timeline.pixels(LatentSpan(3, 6)) == PixelSpan(9, 21)


def test_spans_meet_without_gap():
    spans = [timeline.pixels(LatentSpan(i, i + 3)) for i in range(0, 30, 3)]
    assert spans[0].start == 0 and all(a.stop == b.start for a, b in zip(spans, spans[1:], strict=False))


def test_enough_latent_frames_are_drawn_and_never_one_too_many():
    needed = {frames: timeline.latent_frames(frames) for frames in range(1, 40)}
    assert not {n: f for n, f in needed.items() if not timeline.pixel_frames(f) >= n > timeline.pixel_frames(f - 1)}


def test_a_latent_frame_hears_four_steps_that_end_with_its_last_frame():
    assert timeline.groups(LatentSpan(0, 1)) == PixelSpan(-3, 1)
    assert timeline.groups(LatentSpan(2, 4)) == PixelSpan(5, 13)
    assert timeline.groups(LatentSpan(3, 6)).stop == timeline.pixels(LatentSpan(3, 6)).stop


def test_a_length_in_seconds_is_covered_to_the_frame():
    assert timeline.pixel_frames_in(1.0, 16) == 16
    assert timeline.pixel_frames_in(1.001, 16) == 17
    assert timeline.pixel_frames_in(0.3, 10) == 3  # 0.3 * 10 is a little more than 3 in floating point
    assert timeline.pixel_frames_in(0.001, 16) == 1


def test_a_span_cannot_end_before_it_starts():
    with pytest.raises(ValueError, match="cannot end before"):
        LatentSpan(3, 2)
