"""Plots are SVG that a browser can read."""

from xml.etree import ElementTree

import pytest

from kf_core.evaluation.line_plot import Panel, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def test_a_plot_holds_each_line_in_its_colour_and_one_legend():
    lines = {"full": [1.0, 2.0, 3.0], "a < b": [3.0, None, 1.0]}
    picture = ElementTree.fromstring(line_plot([Panel("one", lines, 0, 10, "seconds"), Panel("two", lines, 0, 10, "seconds", marks=(5,))]))
    drawn = picture.findall(f"{SVG}polyline")
    assert len(drawn) == 4 and len({line.get("stroke") for line in drawn}) == 2
    assert [len(line.get("points").split()) for line in drawn] == [2, 3, 2, 3]  # a gap is left out; the first line lies on top
    assert [text.text for text in picture.findall(f"{SVG}text")].count("a < b") == 1


def test_higher_values_stand_higher_and_all_lie_within_the_panel():
    picture = ElementTree.fromstring(line_plot([Panel("one", {"rising": [0.0, 1.0]}, 0, 1, "x")]))
    (_, low), (_, high) = (map(float, point.split(",")) for point in picture.find(f"{SVG}polyline").get("points").split())
    assert 0 <= high < low <= float(picture.get("height"))


def test_an_axis_begins_and_ends_at_round_numbers_no_further_out_than_needed():
    picture = ElementTree.fromstring(line_plot([Panel("one", {"a": [0.0, 0.4]}, 0, 8, "x")]))
    labels = [float(text.text) for text in picture.findall(f"{SVG}text") if text.get("text-anchor") == "end"]
    assert labels == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_line_that_never_changes_can_be_drawn():
    ElementTree.fromstring(line_plot([Panel("flat", {"one": [2.0, 2.0]}, 0, 1, "x")]))


def test_nothing_to_plot_is_refused():
    with pytest.raises(ValueError):
        line_plot([Panel("empty", {}, 0, 1, "x")])
