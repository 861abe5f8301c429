"""What the curves of a run share: their style, and axes that are written to one PNG file.

Curves are matplotlib `Figure` objects without pyplot. Colours are those of Okabe and Ito, which colour-blind readers
can tell apart. matplotlib is imported inside the functions: it is slow to load. A picture is made in memory first and
then written whole.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bdiff_np.runfolder.files import write_own

BLUE, VERMILION, ORANGE, GREEN, INK, GREY, PALE = (
    "#0072B2",
    "#D55E00",
    "#E69F00",
    "#009E73",
    "#222222",
    "#6E6E6E",
    "#DCDCDC",
)
LARGEST = 1e100
OCHRE = "#A87000"  # orange, dark enough for letters

STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "agg.path.chunksize": 10000,  # a noisy line of 10^5 points overflows Agg's cell block when drawn in one piece
}


@contextlib.contextmanager
def page(width: float, height: float) -> Iterator[Any]:
    """An empty matplotlib Figure of this size in inches; until it is left, what is drawn has the curves' style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlibrc must not change the pictures of a run
        matplotlib.rcParams.update(STYLE)
        yield Figure(figsize=(width, height))


def png(page: Any, dpi: float = 150) -> bytes:
    """A matplotlib Figure as a PNG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


@contextlib.contextmanager
def figure(path: Path | str, height: float, panels: Sequence[float] = (1.0,)) -> Iterator[list[Any]]:
    """Axes one above the other with a common x axis, room for labels at the right, written to `path` as PNG on
    leaving."""
    with page(7.2, height) as figure:
        place = {"left": 0.115, "right": 0.715, "top": 1 - 0.15 / height, "bottom": 0.55 / height, "hspace": 0.14}
        grid = figure.add_gridspec(len(panels), 1, height_ratios=panels, **place)
        axes: list[Any] = []
        for i in range(len(panels)):
            axes.append(figure.add_subplot(grid[i], sharex=axes[0] if axes else None))
            axes[i].tick_params(labelbottom=i == len(panels) - 1)
        yield axes
        if len(axes) > 1:
            figure.align_ylabels(axes)
        picture = png(figure)
    write_own(path, picture)


def x_axis(axes: Sequence[Any], x: np.ndarray, label: str, from_zero: bool = False) -> None:
    """Limits at the data's ends, whole numbers with a thin space between thousands, the label under the lowest
    panel."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = (0.0 if from_zero else float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    axes[-1].set_xlim(low, high if high > low else low + 1)
    axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u2009")))
    axes[-1].set_xlabel(label)


def labels_at_right(ax: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (y, text, colour) beside the right end of the axis, each at its y, moved apart where they would touch; one
    whose y is not finite is left out."""
    labels = sorted((label for label in labels if np.isfinite(label[0])), key=lambda label: label[0])
    low, high = ax.transAxes.transform([(0, 0), (0, 1)])[:, 1]
    y = np.array([ax.transData.transform((0, label[0]))[1] for label in labels])
    y = np.clip(y, low, high)
    room = 13.5 / 72 * ax.figure.dpi
    for _ in range(100):  # two that touch each move by half of what is missing; a few labels settle in a few rounds
        missing = np.maximum(0, room - np.diff(y))
        y[:-1] -= missing / 2
        y[1:] += missing / 2
    if len(y):  # a group at an end of the axis moves inwards as a whole
        rank = np.arange(len(y))
        y = np.minimum(y, high - room * rank[::-1])
        y = np.maximum(y, low + room * rank)
    for place, (_, text, colour) in zip((y - low) / (high - low), labels, strict=True):
        ax.text(1.02, place, text, transform=ax.transAxes, color=colour, fontsize=10.5, va="center", ha="left")


def log_axis(ax: Any, low: float, high: float) -> None:
    """Limits and ticks of a log y axis: powers of ten, with 2 and 5 as plain numbers between where fewer than two
    decades are shown."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_ylim(low, high)
    if high < 100 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def log_limits(drawn: Sequence[np.ndarray], decades: int) -> tuple[float, float]:
    """Limits of a log axis around the positive finite values, all but the lowest hundredth, at most `decades` below the
    highest."""
    drawn = [y[(y > 0) & np.isfinite(y)] for y in drawn]
    drawn = [y for y in drawn if len(y)]
    if not drawn:
        return 0.1, 1.0
    high = max(float(y.max()) for y in drawn)
    low = max(min(float(np.quantile(y, 0.01)) for y in drawn), high * 10.0**-decades)
    if high < 10 * low:  # less than a decade: make it one, so that noise is not blown up
        centre = np.sqrt(high * low)
        low, high = centre / np.sqrt(10), centre * np.sqrt(10)
    return low / 1.5, high * 1.5


def drawable(y: np.ndarray) -> np.ndarray:
    """Which values an axis can show: finite, and not so large that matplotlib's own sums overflow."""
    return np.isfinite(y) & (np.abs(y) <= LARGEST)


def number(value: float) -> str:
    """About four digits for a label, without an exponent below ten million."""
    if not abs(value) < 1e7:
        return f"{value:.3g}"
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}".replace(",", "\u2009")


def dot(x: np.ndarray) -> dict[str, Any]:
    """A line of one point is drawn as a dot, whole even on the edge of the axes."""
    return {"marker": "o", "clip_on": False} if len(x) == 1 else {}
