"""Line plots as SVG text: panels side by side, one line for each name, the same colours in all, a legend below.

For documents, not for exploring: no dependency, a few kilobytes, readable on light and dark pages. Knows nothing of what is plotted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#999999")  # Okabe and Ito's, told apart by all
WIDTH, HEIGHT, MARGIN_LEFT, MARGIN, BELOW = 330, 190, 52, 26, 34  # pixels of a panel's plot and round it


@dataclass(frozen=True)
class Panel:
    """One plot: lines by name, each a list of y at equal steps from `x_first` to `x_last`; None leaves a gap."""

    title: str
    lines: Mapping[str, Sequence[float | None]]
    x_first: float
    x_last: float
    x_label: str
    marks: Sequence[float] = ()  # vertical lines at these x


def line_plot(panels: Sequence[Panel], columns: int = 2) -> str:
    """The panels as one SVG picture."""
    if not panels or not any(panel.lines for panel in panels):
        raise ValueError("a plot needs a panel with a line")
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    rows = math.ceil(len(panels) / columns)
    cell_width, cell_height = MARGIN_LEFT + WIDTH + MARGIN, MARGIN + HEIGHT + BELOW
    entries = [(name, 30 + 6.4 * len(name)) for name in names]
    legend, legend_height = _legend(entries, colours, cell_width * min(columns, len(panels)), cell_height * rows)
    width, height = cell_width * min(columns, len(panels)), cell_height * rows + legend_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for index, panel in enumerate(panels):
        left, top = (index % columns) * cell_width + MARGIN_LEFT, (index // columns) * cell_height + MARGIN
        parts += _panel(panel, colours, left, top)
    return "\n".join([*parts, *legend, "</svg>"]) + "\n"


def _panel(panel: Panel, colours: Mapping[str, str], left: float, top: float) -> list[str]:
    known = [y for line in panel.lines.values() for y in line if y is not None and math.isfinite(y)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    span = (panel.x_last - panel.x_first) or 1.0
    at_x = lambda x: left + WIDTH * (x - panel.x_first) / span
    at_y = lambda y: top + HEIGHT * (high - y) / (high - low)
    parts = [f'<text x="{left}" y="{top - 9}" font-weight="bold">{escape(panel.title)}</text>']
    for tick in ticks:
        y = at_y(tick)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + WIDTH}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in _ticks(panel.x_first, panel.x_last, inside=True):
        parts.append(f'<text x="{at_x(tick):.1f}" y="{top + HEIGHT + 14}" text-anchor="middle">{tick:.4g}</text>')
    for mark in panel.marks:
        parts.append(
            f'<line x1="{at_x(mark):.1f}" y1="{top}" x2="{at_x(mark):.1f}" y2="{top + HEIGHT}" stroke="#888888" stroke-dasharray="3 3"/>'
        )
    parts.append(f'<text x="{left + WIDTH / 2}" y="{top + HEIGHT + 28}" text-anchor="middle">{escape(panel.x_label)}</text>')
    for name, line in reversed(panel.lines.items()):  # the first lies on top
        steps = max(1, len(line) - 1)
        points = [(at_x(panel.x_first + span * k / steps), y) for k, y in enumerate(line)]
        drawn = " ".join(f"{x:.1f},{at_y(y):.1f}" for x, y in points if y is not None and math.isfinite(y))
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colours[name]}" stroke-width="1.6"/>')
    return parts


def _ticks(low: float, high: float, inside: bool = False) -> list[float]:
    """Four to eight round numbers round the range, or within it."""
    rough = (high - low) / 5 or 1.0
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    low, high = low / step, high / step
    numbers = (
        range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1) if inside else range(math.floor(low + 1e-9), math.ceil(high - 1e-9) + 1)
    )
    return [step * k for k in numbers]


def _legend(entries: Sequence[tuple[str, float]], colours: Mapping[str, str], width: float, top: float) -> tuple[list[str], float]:
    parts, x, y = [], 10.0, top + 14
    for name, length in entries:
        if x + length > width:
            x, y = 10.0, y + 17
        parts.append(f'<line x1="{x:.0f}" y1="{y - 4:.0f}" x2="{x + 18:.0f}" y2="{y - 4:.0f}" stroke="{colours[name]}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 23:.0f}" y="{y:.0f}">{escape(name)}</text>')
        x += length + 8
    return parts, y - top + 10
