"""Pictures of points with real coordinates, PNG and GIF: a scatter of soft dots, or a histogram where D = 1. Of more
than two coordinates, the first two are drawn, and the title says so.

The axes are drawn once with matplotlib, the points of each frame into an array of pixels. Points that are not finite,
or outside of the axes, are left out. matplotlib and pillow are imported inside the functions: both are slow to load.
A picture is made in memory first and then written whole.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bdiff_np.runfolder.files import write_own
from bdiff_np.show.figure import BLUE, LARGEST, page, png

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_FRAMES, LEAST_FRAMES, MAX_DOTS = 100, 30, 40_000  # frames of a GIF; dots of all of its frames, aimed at
FRAME_MS, LAST_FRAME_MS = 500, 3000
PANEL, LEFT, RIGHT, HEAD, FOOT = 400, 44, 16, 40, 32  # pixels: the axes, and what is around them
GREYS, BLUES = 8, 8  # levels of the palette: letters and lines; dots, which lie on white


def shown(settings: Any) -> int:
    """How many samples their picture shows; settings : section `data`"""
    return 2000


def walked(settings: Any) -> int:
    """How many samples the film of the reverse trajectory shows"""
    return 1000


def samples(path: Path | str, rows: ArrayLike, settings: Any, *, title: str | None = None) -> None:
    """Draw points as a still picture (PNG).

    Parameters
    ----------
    rows : (n, D) coordinates
    settings : section `data`
    title : a line above the picture

    Raises
    ------
    ValueError : not (n, D) with n, D >= 1.
    """
    picture = _frames(_states([rows]), [title or ""], scale=2)[0]
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", dpi=(200, 200))
    write_own(path, buffer.getvalue())


def sample_evolution(path: Path | str, epochs: ArrayLike, examples: ArrayLike, settings: Any) -> None:
    """Animate (GIF, 2 frames a second) how the same samples change over the epochs, in the axes that suit the last. The
    last frame is held for three seconds.

    Parameters
    ----------
    epochs : (E,) int, E >= 1. Of more than 100 epochs, 100 are shown, or fewer of many points, so that the file stays
        small: evenly spread from the first to the last.
    examples : (E, n, D) coordinates, made after each epoch from the same noise
    settings : see `samples`

    Raises
    ------
    ValueError : as `samples`, or as many epochs as examples are not there.
    """
    _animate(path, [f"Epoch: {epoch}" for epoch in np.asarray(epochs).tolist()], examples, FRAME_MS)


def reverse_trajectory(path: Path | str, times: ArrayLike, states: ArrayLike, settings: Any) -> None:
    """Animate (GIF) one reverse pass, from noise to clean points, in ten seconds at most and in the axes that suit the
    clean ones. The last frame is held for three more.

    Parameters
    ----------
    times : (K,) int, K >= 1, decreasing from T to 0: the time of each state; shown are as many as by
        `sample_evolution`
    states : (K, n, D) coordinates
    settings : see `samples`

    Raises
    ------
    ValueError : as `samples`, or as many times as states are not there.
    """
    _animate(path, [f"t = {time}" for time in np.asarray(times).tolist()], states, 100)


def more(run: Any, model: Any, rows: np.ndarray) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The pictures that only a model of points has (points_figures.py): the name of each, and what draws it to a path.

    run : run.Run. rows : samples, (n, D). What takes arrows and lines is for D = 2.
    """
    from bdiff_np.show import points_figures

    yield "density.png", partial(points_figures.density, run=run, model=model, rows=rows)
    yield "triptych.png", partial(points_figures.triptych, run=run, model=model)
    if model.D == 2:
        yield "trajectories.png", partial(points_figures.trajectories, run=run, model=model)
        if model.family.drift is not None:
            yield "drift_field.png", partial(points_figures.drift_field, run=run, model=model)


class Limits(NamedTuple):
    """The rectangle that axes show. low, high : (d,), d = 1 or 2"""

    low: np.ndarray
    high: np.ndarray

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Those of the points (n, d) that the axes show, (m, d)."""
        return xy[((xy >= self.low) & (xy <= self.high)).all(1)]


def limits(rows: np.ndarray) -> Limits:
    """Axes that suit points (n, D): the middle 99 % of the first two coordinates and a fifth of that on each side.

    Both axes have one scale, unless one coordinate reaches more than four times as far as the other. Values that are
    not finite, or further from the median than twenty times as much as three quarters are, count for nothing.
    """
    ends = np.array([_ends(x[np.isfinite(x) & (np.abs(x) <= LARGEST)]) for x in rows[:, :2].T])  # (d, 2)
    middle, reach = ends.mean(1), np.diff(ends)[:, 0] * 0.7
    if reach.max() <= 4 * reach.min():
        reach = np.full_like(reach, reach.max())
    return Limits(middle - reach, middle + reach)


def _ends(x: np.ndarray) -> tuple[float, float]:
    if not len(x):
        return -1.0, 1.0
    off = np.abs(x - np.median(x))
    low, high = np.quantile(x[off <= (20 * np.quantile(off, 0.75) or np.inf)], [0.005, 0.995])
    most = max(abs(low), abs(high))
    if high - low <= 1e-9 * most:  # all alike
        low, high = low - 0.5 * (most or 1.0), high + 0.5 * (most or 1.0)
    return low, high


def opacity(n: int) -> tuple[float, float]:
    """How n dots are drawn so that few can be seen and many do not run together: opacity of one, from 0 to 1, and
    radius, as a share of the panel's width."""
    return float(np.clip(10 / n**0.4, 0.12, 0.85)), float(np.clip(10 / n**0.25, 1.1, 3.6)) / PANEL


def bars(n: int) -> int:
    """How many bars a histogram of n points has."""
    return int(np.clip(2 * np.sqrt(n), 10, 80))


# Pixels
# ----------------------------------------------------------------------------------------------------------------------


def _states(rows: Any) -> np.ndarray:
    """(F, n, D) float64. Raises ValueError for another shape."""
    states = np.asarray(rows, dtype=np.float64)
    if states.ndim != 3 or 0 in states.shape:
        raise ValueError(f"points must have shape (n, D) with n and D at least 1, not {states.shape[1:]}")
    return states


def _animate(path: Path | str, titles: list[str], rows: ArrayLike, frame_ms: int) -> None:
    rows = np.asarray(rows)
    if not len(titles) or len(titles) != len(rows):
        raise ValueError(
            f"{len(titles)} titles for {len(rows)} frames: one for each, and at least one frame, are needed"
        )
    states = _states(rows)
    count = min(len(titles), max(LEAST_FRAMES, min(MAX_FRAMES, MAX_DOTS // states.shape[1])))
    chosen = np.unique(np.linspace(0, len(titles) - 1, count).round().astype(int))
    first, *rest = _frames(states[chosen], [titles[i] for i in chosen])
    duration = [frame_ms] * len(rest) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    write_own(path, buffer.getvalue())


def _frames(states: np.ndarray, titles: list[str], scale: int = 1) -> list[Image]:
    """(F, n, D) points and F titles to F pictures of one size and with the axes of the last, in GREYS of grey and BLUES
    of blue. scale : pixels for one of PANEL"""
    import matplotlib
    from matplotlib.colors import to_rgb
    from PIL import Image, ImageDraw, ImageFont

    n, D = states.shape[1:]
    box, fonts = limits(states[-1]), Path(matplotlib.get_data_path(), "fonts", "ttf")
    title_font, note_font = (
        ImageFont.truetype(str(fonts / f"DejaVuSans{bold}.ttf"), size * scale)
        for bold, size in (("-Bold", 16), ("", 11))
    )
    note = f"{n} point{'s' * (n > 1)}" + f", coordinates 1 and 2 of {D}" * (D > 2)
    empty = _axes(box, scale)
    levels = np.arange(GREYS)[:, None] / (GREYS - 1) * np.ones(3)
    part = np.arange(1, BLUES + 1)[:, None] / BLUES
    palette = np.rint(255 * np.concatenate([levels, 1 - part * (1 - np.array(to_rgb(BLUE)))])).astype(np.uint8)
    top = 1.15 * _heights(states[-1, :, 0], box).max() if D == 1 else 0.0
    left, head, side = LEFT * scale, HEAD * scale, PANEL * scale
    pictures = []
    for state, title in zip(states, titles, strict=True):
        sheet = empty.copy()
        pen = ImageDraw.Draw(sheet)
        pen.text((left, head - 14 * scale), title, fill=34, font=title_font, anchor="ls")
        pen.text((left + side, head - 14 * scale), note, fill=110, font=note_font, anchor="rs")
        pixels = np.rint(np.asarray(sheet) * ((GREYS - 1) / 255)).astype(np.uint8)
        cover = _bars(state[:, 0], box, top, side) if D == 1 else _dots(state[:, :2], box, side)
        blue = np.rint(cover * BLUES).astype(np.uint8)
        panel = pixels[head : head + side, left : left + side]
        panel[blue > 0] = blue[blue > 0] + (GREYS - 1)
        picture = Image.frombytes("P", sheet.size, pixels.tobytes())
        picture.putpalette(palette.tobytes())
        pictures.append(picture)
    return pictures


def _axes(box: Limits, scale: int) -> Image:
    """Empty axes as a grey picture."""
    from PIL import Image

    width, height = LEFT + PANEL + RIGHT, HEAD + PANEL + FOOT
    with page(width / 100, height / 100) as sheet:
        ax = sheet.add_axes((LEFT / width, FOOT / height, PANEL / width, PANEL / height))
        dress(ax, box)
        picture = png(sheet, 100 * scale)
    return Image.open(io.BytesIO(picture)).convert("L")


def dress(ax: Any, box: Limits) -> None:
    """Gives matplotlib's axes the limits, and a few ticks with small figures; none at the side of a histogram."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(box.low[0], box.high[0])
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.tick_params(labelsize=8, length=3, width=0.6)
    if len(box.low) == 1:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    else:
        ax.set_ylim(box.low[1], box.high[1])
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _dots(xy: np.ndarray, box: Limits, side: int) -> np.ndarray:
    """How far dots (n, 2) cover each pixel of a panel, (side, side) from 0 to 1: each a disc with a smooth edge, one
    over the other."""
    strength, radius = opacity(len(xy))
    radius *= side
    at = (box.inside(xy) - box.low) / (box.high - box.low)
    x, y = at[:, 0] * side - 0.5, (1 - at[:, 1]) * side - 0.5  # of the middles of pixels
    reach = int(np.ceil(radius + 0.5))
    step = np.arange(-reach, reach + 1)
    columns, rows = (np.rint(a).astype(int)[:, None] + step for a in (x, y))  # (n, S)
    square = (rows - y[:, None])[:, :, None] ** 2 + (columns - x[:, None])[:, None, :] ** 2
    weight = -np.log1p(-strength * np.clip(radius + 0.5 - np.sqrt(square), 0, 1))  # (n, S, S)
    wide = side + 2 * reach + 2  # dots at the edges reach beyond
    index = (rows + reach + 1)[:, :, None] * wide + (columns + reach + 1)[:, None, :]
    total = np.bincount(index.ravel(), weight.ravel(), wide * wide).reshape(wide, wide)
    return -np.expm1(-total[reach + 1 : -reach - 1, reach + 1 : -reach - 1])


def _heights(x: np.ndarray, box: Limits) -> np.ndarray:
    """Bars of the histogram of points (n,)."""
    return np.histogram(x[np.isfinite(x)], bars(len(x)), (box.low[0], box.high[0]))[0]


def _bars(x: np.ndarray, box: Limits, top: float, side: int) -> np.ndarray:
    """The same as `_dots` for a histogram, whose axis ends at `top` points a bar."""
    heights = _heights(x, box)
    bar = np.arange(side) * len(heights) // side  # of each column of pixels
    gap = np.diff(bar, prepend=-1) > 0
    tall = np.where(gap, 0, heights[bar] / max(top, 1) * side)
    return 0.75 * (np.arange(side, 0, -1)[:, None] <= tall)
