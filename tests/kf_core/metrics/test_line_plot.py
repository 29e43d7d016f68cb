"""Plots are SVG that a browser can read, and show each line where its numbers say."""

import sys
from xml.etree import ElementTree

import pytest

from kf_core.errors import KnotForcingError
from kf_core.metrics.line_plot import Panel, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def texts(image: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in image.iter(f"{SVG}text")]


def points(image: ElementTree.Element, name: str) -> list[list[tuple[float, float]]]:
    """Of every line of that name: its points, in the image's units, y downwards."""
    paths = [path.get("d") for group in image.iter(f"{SVG}g") if group.get("id") == name for path in group.iter(f"{SVG}path")]
    numbers = [[float(word) for word in path.replace("M", " ").replace("L", " ").split()] for path in paths]
    return [list(zip(line[::2], line[1::2], strict=True)) for line in numbers]


def test_a_plot_holds_each_line_and_each_name_once():
    lines = {"full": [1.0, 2.0, 3.0], "a < b": [3.0, None, 1.0]}
    drawn = line_plot(
        [Panel("one", lines, 0, 10, "seconds"), Panel("two", lines, 0, 10, "seconds", marks=(5,))], title="both", notes=["x & y"]
    )
    image = ElementTree.fromstring(drawn)
    assert [len(line) for line in points(image, "full")] == [3, 3] and len(points(image, "a < b")) == 2
    assert [texts(image).count(text) for text in ("full", "a < b", "one", "two", "seconds", "both", "x & y")] == [1, 1, 1, 1, 2, 1, 1]


def test_higher_values_stand_higher_and_later_ones_further_right():
    image = ElementTree.fromstring(line_plot([Panel("one", {"rising": [0.0, 1.0, 2.0]}, 0, 1, "x")]))
    (line,) = points(image, "rising")
    assert line == sorted(line) and [y for _, y in line] == sorted((y for _, y in line), reverse=True)


def test_a_band_lies_round_its_line_and_an_axis_that_begins_at_zero_does():
    plain, banded = (
        line_plot([Panel("one", {"a": [5.0, 6.0]}, 0, 1, "x", bands=bands, y_range=(0, 10))]) for bands in ({}, {"a": ([4, 5], [6, 7])})
    )
    assert len(banded) > len(plain) and "0" in texts(ElementTree.fromstring(plain))


def test_the_same_panels_give_the_same_text():
    panels = [Panel("one", {"a": [0.0, 0.4]}, 0, 8, "x")]
    assert line_plot(panels) == line_plot(panels)


def test_a_line_that_never_changes_can_be_drawn():
    ElementTree.fromstring(line_plot([Panel("flat", {"one": [2.0, 2.0]}, 0, 1, "x")]))


def test_nothing_to_plot_is_refused():
    with pytest.raises(ValueError):
        line_plot([Panel("empty", {}, 0, 1, "x")])


def test_without_matplotlib_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(KnotForcingError, match="pip install matplotlib"):
        line_plot([Panel("one", {"a": [0.0, 1.0]}, 0, 1, "x")])
