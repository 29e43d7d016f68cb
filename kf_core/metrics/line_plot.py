"""Line plots as SVG: panels side by side, one colour for each name, the same in all, and one legend. Drawn by matplotlib.

Matplotlib is wanted by whoever makes the documents again, not by whoever makes a video, so it is imported here alone and late.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import KnotForcingError

COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#999999")  # Okabe and Ito's, told apart by all
WIDTH, PANEL_HEIGHT = 8.8, 2.4  # inches
LOOK = {"svg.fonttype": "none", "svg.hashsalt": "knot-forcing", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class Panel:
    """One plot: lines by name, each a list of y at equal steps from `x_first` to `x_last`; None leaves a gap."""

    title: str
    lines: Mapping[str, Sequence[float | None]]
    x_first: float
    x_last: float
    x_label: str
    marks: Sequence[float] = ()  # vertical lines at these x
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)  # name -> (low, high) behind its line
    y_range: tuple[float, float] | None = None  # None: what the lines need


def need_matplotlib() -> None:
    """Raises KnotForcingError where it is missing: to be known before hours are spent on what would be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as missing:
        raise KnotForcingError("Drawing a plot needs matplotlib, which is not installed. `pip install matplotlib` brings it.") from missing


def line_plot(panels: Sequence[Panel], columns: int = 2, *, title: str = "", notes: Sequence[str] = ()) -> str:
    """The panels as one SVG image; the same panels give the same text. Raises KnotForcingError without matplotlib."""
    if not panels or not any(panel.lines for panel in panels):
        raise ValueError("a plot needs a panel with a line")
    need_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(LOOK):
        size = WIDTH, PANEL_HEIGHT * rows + 0.5 + 0.2 * len(notes)
        figure = Figure(size, layout="constrained", facecolor="white")
        for panel, axes in zip(panels, figure.subplots(rows, columns, squeeze=False).flat, strict=False):
            _draw(panel, axes, colours)
        for axes in figure.axes[len(panels) :]:
            axes.remove()
        handles = {name: line for axes in figure.axes for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle("\n".join((title, *notes)) if title else "\n".join(notes), fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw(panel: Panel, axes, colours: Mapping[str, str]) -> None:
    for name, line in reversed(panel.lines.items()):  # the first lies on top
        at = _steps(panel, len(line))
        axes.plot(at, [math.nan if y is None else y for y in line], label=name, color=colours[name], linewidth=1.3, gid=name)
    for name, (low, high) in panel.bands.items():
        axes.fill_between(_steps(panel, len(low)), low, high, color=colours[name], alpha=0.18, linewidth=0)
    for mark in panel.marks:
        axes.axvline(mark, color="#888888", linestyle=(0, (3, 3)), linewidth=0.8)
    axes.set_title(panel.title, loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel(panel.x_label)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)


def _steps(panel: Panel, count: int) -> list[float]:
    return [panel.x_first + (panel.x_last - panel.x_first) * k / max(1, count - 1) for k in range(count)]
