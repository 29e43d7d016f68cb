"""Numbers over time as an SVG picture: panels under one axis, written as text, so that it stays sharp and its figures can be read.

Knows nothing of what the numbers are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL, GAP, LEFT, RIGHT, TOP, BOTTOM = 920, 130, 46, 64, 24, 56, 64
PAPER, INK, SOFT = "#fafaf7", "#33373d", "#d5d8dc"
COLOURS = ("#c43e30", "#3a6ea5", "#4a8f5d")


@dataclass(frozen=True)
class Line:
    """What one line shows: its name, and a value at each place; places in the unit of the axis below all panels."""

    name: str
    places: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None  # with `high`, a band behind the line
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    title: str  # with the unit
    lines: Sequence[Line]
    top: float | None = None  # the largest value that is shown; None: the largest there is


def chart(title: str, panels: Sequence[Panel], *, axis: str, notes: Sequence[str] = ()) -> str:
    """The picture as SVG. Every panel begins at 0, so that what is flat looks flat and what grows does not look worse than it is."""
    height = TOP + len(panels) * (PANEL + GAP) + BOTTOM + 16 * len(notes)
    last = max(place for panel in panels for line in panel.lines for place in line.places)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
        f'<text x="{LEFT}" y="26" font-size="16">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, TOP + number * (PANEL + GAP), last)
    foot = TOP + len(panels) * (PANEL + GAP) - GAP
    for place in _ticks(last, 7):
        parts.append(f'<text x="{_x(place, last):.1f}" y="{foot + 18}" text-anchor="middle">{place:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{foot + 36}" text-anchor="end">{escape(axis)}</text>')
    for row, note in enumerate(notes):
        parts.append(f'<text x="{LEFT}" y="{foot + 58 + 16 * row}" font-size="11">{escape(note)}</text>')
    return "\n".join((*parts, "</svg>", ""))


def _panel(panel: Panel, top: int, last: float) -> list[str]:
    most = panel.top or max(value for line in panel.lines for value in (*line.values, *(line.high or ()))) or 1.0
    bottom = top + PANEL
    y = lambda value: bottom - min(value, most) / most * PANEL
    points = lambda places, values: " ".join(f"{_x(p, last):.1f},{y(v):.1f}" for p, v in zip(places, values, strict=True))
    parts = [f'<text x="{LEFT}" y="{top - 8}">{escape(panel.title)}</text>']
    for value in _ticks(most, 4):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{SOFT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for number, line in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        if line.low is not None and line.high is not None:
            outline = f"{points(line.places, line.high)} {points(line.places[::-1], line.low[::-1])}"
            parts.append(f'<polygon points="{outline}" fill="{colour}" opacity="0.18"/>')
        parts.append(f'<polyline points="{points(line.places, line.values)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{WIDTH - RIGHT - 190 * number}" y="{top - 8}" text-anchor="end" fill="{colour}">{escape(line.name)}</text>')
    return parts


def _x(place: float, last: float) -> float:
    return LEFT + place / (last or 1.0) * (WIDTH - LEFT - RIGHT)


def _ticks(most: float, about: int) -> list[float]:
    """Round numbers from 0 to `most`, about so many."""
    power = 10.0
    while power * 10 <= most:
        power *= 10
    while power > most / about and power > 1e-9:
        power /= 10
    step = next((power * factor for factor in (1, 2, 2.5, 5, 10, 20) if power * factor >= most / about), most)
    return [round(step * number, 9) for number in range(int(most / step + 1e-9) + 1)]
