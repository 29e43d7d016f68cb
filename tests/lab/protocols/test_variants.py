"""The variants of an ablation, and whether training prepared for them."""

from dataclasses import replace

import pytest

from kf_core.checkpoints.known_models import kf_tiny
from kf_core.errors import KnotForcingError
from kf_core.settings import Behind
from lab.kf_tiny.batches import layouts
from lab.kf_tiny.coverage import coverage
from lab.protocols.variants import FULL, chosen, variants

OWN = kf_tiny().rollout
ALL = variants(OWN, 81)


def test_each_variant_differs_from_the_method_and_from_each_other():
    settings = [variant.settings for variant in ALL.values()]
    assert ALL[FULL].settings == OWN and len(set(settings)) == len(settings)
    assert {"without-knot", "without-fusion", "anchor-fixed", "anchor-behind", "without-anchor", "self-forcing"} <= set(ALL)
    assert {"stride-3", "stride-6", "window-4", "window-12"} <= set(ALL)


def test_what_the_method_itself_does_is_no_variant():
    assert not {f"window-{OWN.window}", f"stride-{OWN.anchor.stride}"} & set(ALL)


def test_a_knot_is_also_compared_at_as_many_past_frames():
    assert ALL["without-knot-window-5"].settings.past == OWN.past < ALL["without-knot"].settings.past
    assert "as with it: without one the window has room for 3" in ALL["without-knot-window-5"].change


def test_self_forcing_remembers_the_whole_stream():
    assert variants(OWN, 80)["self-forcing"].settings.max_frames == 81


def test_long_runs_are_for_few_variants_and_the_method_is_always_among_them():
    assert [variant.name for variant in chosen(None, ALL, 600)] == [FULL, "without-anchor", "anchor-fixed"]
    assert len(chosen(None, ALL, 60)) == 4 and len(chosen(None, ALL, 20)) == len(ALL)
    assert [variant.name for variant in chosen("window-4", ALL, 20)] == [FULL, "window-4"]


def test_a_variant_that_does_not_exist_is_named():
    with pytest.raises(KnotForcingError, match="no variant knotless"):
        chosen("knotless", ALL, 20)


def test_a_model_without_a_knot_has_nothing_to_turn_off():
    with pytest.raises(KnotForcingError, match="knot"):
        variants(replace(OWN, knot=None, fuse=False), 81)


def test_training_prepares_for_the_method_and_not_for_what_it_never_showed():
    assert coverage(OWN, OWN).share >= 0.1 and "samples" in str(coverage(OWN, OWN))
    assert str(coverage(OWN, replace(OWN, window=9))) == "untrained"
    assert coverage(OWN, replace(OWN, anchor=Behind(4))).share >= 0.1
    assert coverage(OWN, replace(OWN, anchor=Behind(40))).share == 0


def test_an_anchor_that_is_overtaken_is_trained_for_a_while():
    assert "the first 7.8 s" in str(coverage(OWN, ALL["anchor-fixed"].settings))


def test_coverage_is_the_share_of_the_layouts_that_are_alike():
    without_knot = [layout for layout in layouts(OWN) if layout.settings.knot is None and layout.settings.anchor is not None]
    assert coverage(OWN, ALL["without-knot"].settings).share == pytest.approx(sum(layout.share for layout in without_knot))


def test_a_streams_beginning_prepares_for_no_later_chunk():
    own = replace(OWN, first_frame="tie")
    window_4 = replace(own, window=own.denoised)
    assert coverage(own, window_4) == coverage(replace(OWN, first_frame="free"), replace(window_4, first_frame="free"))
    assert coverage(own, window_4).share == pytest.approx(0.1)
