"""The pictures of a run: curves as PNG, rows of bits as PNG and GIF. Arrays in, one file out, nothing else.

Curves are matplotlib `Figure` objects without pyplot; bits are drawn as whole pixels with pillow, so that a cell is never blurred. Colours
are those of Okabe and Ito, which colour-blind readers can tell apart. matplotlib and pillow are imported inside the functions: both are
slow to load, and `import bdiff_np` must not wait for them. A picture is made in memory first and then written whole.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bdiff_np.runfolder.files import write_whole

if TYPE_CHECKING:
    from PIL.Image import Image

BLUE, VERMILION, ORANGE, GREEN, INK, GREY, PALE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#222222", "#6E6E6E", "#DCDCDC"
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
    "savefig.dpi": 150,
    "agg.path.chunksize": 10000,  # a noisy line of 10^5 points overflows Agg's cell block when drawn in one piece
}

MAX_FRAMES = 100
FRAME_MS, LAST_FRAME_MS = 500, 3000
BOARD_WIDTH, BOARD_HEIGHT, MAX_LINE = 640, 480, 1024  # pixels aimed at; bits in a line before a row is wrapped
GREYS = 8  # levels of a GIF: black, white, the lines, and smooth edges of the letters
ONE, ZERO, LINE = 0, 7, 6  # levels of a 1, of a 0 and of whatever separates cells


# Curves -----------------------------------------------------------------------------------------------------------------------------


def loss_curve(
    path: Path | str,
    step: ArrayLike,
    loss_bits: ArrayLike,
    *,
    val_step: ArrayLike | None = None,
    val_bits: ArrayLike | None = None,
    floor_bits: float | None = None,
    null_bits: float | None = None,
) -> None:
    """Draw the bound against the optimiser step; where the floor is known, a second panel shows the distance to it on a log scale.

    The upper axis is linear and cut above the part that matters: an untrained net may start ten or a thousand times higher, and then the
    picture says where it started. The thick training line, and the figure at its end, are a running mean. Points that are not finite are
    left out.

    Parameters
    ----------
    step, loss_bits : (N,) optimiser steps, increasing, and the training bound in bits per sequence (noisy estimates); N may be 0
    val_step, val_bits : (M,) the same for the held-out rows; both or neither
    floor_bits : the exact floor of the bound, bits per sequence
    null_bits : the code length under independent bits, bits per sequence

    Raises
    ------
    ValueError : arrays of different lengths.
    """
    step, loss = _finite_pairs(step, loss_bits, "step", "loss_bits")
    val_x, val_y = _finite_pairs([] if val_step is None else val_step, [] if val_bits is None else val_bits, "val_step", "val_bits")
    smooth = _running_mean(loss)
    curves = [("training", step, smooth, BLUE), ("validation", val_x, val_y, VERMILION)]
    curves = [curve for curve in curves if len(curve[1])]
    levels = [("exact floor", floor_bits, INK), ("independent bits", null_bits, GREY)]
    rules = [(text, y, colour) for text, y, colour in levels if y is not None]
    height, panels = (3.8, [1.0]) if floor_bits is None else (5.2, [2.2, 1.0])

    with _figure(path, height, panels) as axes:
        main = axes[0]
        main.plot(step, loss, color=BLUE, alpha=0.3, linewidth=0.6)
        for _, x, y, colour in curves:
            main.plot(x, y, color=colour, **_dot(x))
        for _, bits, colour in rules:
            main.axhline(bits, color=colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        bottom, top, cut = _loss_limits([(x, y) for _, x, y, _ in curves], [y for _, y, _ in rules], loss)
        main.set_ylim(bottom, top)
        if cut:
            _, x, y, colour = curves[0]
            enters = float(x[np.argmax(y < top)])
            note = f"starts at {_number(y[0])}"
            main.annotate(note, (enters, top), (8, -1), textcoords="offset points", color=colour, fontsize=9.5, va="top")
        main.set_ylabel("bound (bits per sequence)")
        _x_axis(axes, np.concatenate([x for _, x, _, _ in curves]) if curves else np.zeros(1), "optimiser step", from_zero=True)
        _labels_at_right(main, [(y, f"{text} {_number(y)}", c) for text, y, c in [*((n, y[-1], c) for n, _, y, c in curves), *rules]])

        if floor_bits is not None:
            gap = axes[1]
            gap.set_yscale("log")
            ends, drawn = [], []
            for text, x, y, colour in curves:
                above = np.where(y > floor_bits, y - floor_bits, np.nan)  # chance may take an estimate below the floor: a gap
                gap.plot(x, above, color=colour, **_dot(x))
                drawn.append(above)
                if y[-1] > floor_bits:
                    ends.append((above[-1], f"{text} {above[-1]:.2g}", colour))
            _log_axis(gap, *_log_limits(drawn, decades=5))
            gap.set_ylabel("above floor (bits)")
            _labels_at_right(gap, ends)


def validation(path: Path | str, epoch: ArrayLike, proportions: Mapping[str, ArrayLike], *, best_possible: float | None = None) -> None:
    """Draw, over the epochs, which share of the samples is a row of train.txt, of val.txt, a valid row in neither, or none of these.

    Parameters
    ----------
    epoch : (E,) epochs, increasing; E may be 0 or 1
    proportions : lists of E shares in 0..1: "train", "other", and optionally "val" and "valid_unseen". They sum to 1. Where
        "valid_unseen" is given, "other" means invalid. A "val" of zeros only is left out: there was no val.txt.
    best_possible : the share of valid rows that the exact denoiser reaches with as many steps; the top of the coloured areas aims at it

    Raises
    ------
    ValueError : lists of different lengths, or an unknown name.
    """
    epoch = np.asarray(epoch, dtype=np.float64)
    known = {"train": ("in train", BLUE, BLUE), "val": ("in val", ORANGE, OCHRE), "valid_unseen": ("valid, unseen", GREEN, GREEN)}
    known["other"] = ("invalid" if "valid_unseen" in proportions else "other", PALE, GREY)
    unknown = set(proportions) - set(known)
    if unknown:
        raise ValueError(f"proportions: unknown {sorted(unknown)}; known are {list(known)}")
    shares = {name: np.asarray(proportions[name], dtype=np.float64) for name in known if name in proportions}
    for name, share in shares.items():
        if share.shape != epoch.shape:
            raise ValueError(f"proportions[{name!r}] has shape {share.shape}, epoch has {epoch.shape}")
    if "val" in shares and not shares["val"].any():
        del shares["val"]

    with _figure(path, height=3.8) as axes:
        main = axes[0]
        labels, below = [], np.zeros(len(epoch))
        x = np.array([epoch[0] - 0.5, epoch[0] + 0.5]) if len(epoch) == 1 else epoch  # one epoch is a column one epoch wide
        for name, share in shares.items():
            text, colour, letters = known[name]
            above = below + share
            main.fill_between(x, 100 * np.broadcast_to(below, x.shape), 100 * np.broadcast_to(above, x.shape), color=colour, linewidth=0)
            if len(epoch):
                labels.append((50 * (below[-1] + above[-1]), f"{text} {100 * share[-1]:.1f} %", letters))
            below = above
        if best_possible is not None:
            main.axhline(100 * best_possible, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
            labels.append((100 * best_possible, f"best valid {100 * best_possible:.1f} %", INK))
        main.set_ylim(0, 100)
        main.set_ylabel("share of samples (%)")
        _x_axis(axes, x, "epoch")
        if len(epoch) == 1:
            main.set_xticks(epoch)
        _labels_at_right(main, labels)


def kl_per_step(
    path: Path | str, t: ArrayLike, kl_bits: ArrayLike, *, floor_kl_bits: ArrayLike | None = None, T: int | None = None
) -> None:
    """Draw what each step of the chain costs, and how the bound builds up over the steps.

    More than 100 steps are averaged in 50 equal ranges of t: single steps are Monte Carlo estimates and too noisy to read.

    Parameters
    ----------
    t : (N,) int steps of the chain, increasing, within 1..T; normally all of 1..T. A step left out counts as its nearest neighbour.
    kl_bits : (N,) mean KL of that step, bits per sequence
    floor_kl_bits : (N,) the same for the exact denoiser
    T : number of steps; the last entry of t if not given

    Raises
    ------
    ValueError : arrays of different lengths, or none at all.
    """
    t = np.asarray(t, dtype=np.float64)
    curves = [("model", np.asarray(kl_bits, dtype=np.float64), BLUE)]
    if floor_kl_bits is not None:
        curves.append(("exact", np.asarray(floor_kl_bits, dtype=np.float64), INK))
    if not len(t) or any(kl.shape != t.shape for _, kl, _ in curves):
        shapes = [kl.shape for _, kl, _ in curves]
        raise ValueError(f"t has shape {t.shape}, the KLs have {shapes}: lists of one length, at least 1, are needed")
    last = float(t[-1] if T is None else T)
    # How many steps each entry stands for: 1 where t is all of 1..T.
    width = np.diff(np.concatenate([[0.5], (t[1:] + t[:-1]) / 2, [last + 0.5]]))

    with _figure(path, height=5.2, panels=(1.5, 1.0)) as axes:
        main, share = axes
        main.set_yscale("log")
        ends, drawn = [], []
        for text, kl, colour in curves:
            x, y = _bin_mean(t, kl, width, last) if len(t) > 100 else (t, kl)
            positive = y > 0
            dashes: Any = "-" if text == "model" else (0, (4, 2.5))
            main.plot(x[positive], y[positive], color=colour, linestyle=dashes, **_dot(x))
            drawn.append(y)
            total = float(np.sum(kl * width))
            if positive.any():
                ends.append((y[positive][-1], f"{text}, sum {_number(total)}", colour))
            if total > 0:
                part = 100 * np.cumsum(kl * width) / total
                share.plot([0.0, *t], [0.0, *part], color=colour, linestyle=dashes)
                if text == "model":
                    half = float(t[np.searchsorted(part, 50.0)])
                    share.plot([half, half, 0], [0, 50, 50], color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
                    note = f"half of it in t ≤ {half:.0f}"
                    share.annotate(note, (half, 50), (8, -4), textcoords="offset points", color=GREY, fontsize=9.5, va="top")
        _log_axis(main, *_log_limits(drawn, decades=6))
        main.set_ylabel("KL of one step (bits per sequence)")
        share.set_ylim(0, 100)
        share.set_ylabel("sum over 1..t (%)")
        _x_axis(axes, np.array([1.0, last]), "step t of the chain", from_zero=True)
        _labels_at_right(main, ends)


# Rows of bits -----------------------------------------------------------------------------------------------------------------------


def samples(path: Path | str, rows: ArrayLike, *, shape: tuple[int, int] | None = None, title: str | None = None) -> None:
    """Draw rows of bits as a still picture (PNG), black for 1.

    Parameters
    ----------
    rows : (n, D) of 0 and 1
    shape : (h, w) with h w = D: draw each row as an image of that shape, side by side; otherwise one row of bits below the other
    title : a line above the picture

    Raises
    ------
    ValueError : not (n, D) with n, D >= 1, or a shape that does not hold D bits.
    """
    rows = np.asarray(rows)
    picture = _frames(rows[None], [title or ""], shape)[0]
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", dpi=(150, 150))
    write_whole(path, buffer.getvalue())


def sample_evolution(path: Path | str, epochs: ArrayLike, examples: ArrayLike, *, shape: tuple[int, int] | None = None) -> None:
    """Animate (GIF, 2 frames a second) how the same few samples change over the epochs. The last frame is held for three seconds.

    Parameters
    ----------
    epochs : (E,) int, E >= 1. Of more than 100 epochs, 100 are shown, evenly spread from the first to the last.
    examples : (E, n, D) of 0 and 1, made after each epoch from the same noise
    shape : (h, w), see `samples`

    Raises
    ------
    ValueError : as `samples`, or as many epochs as examples are not there.
    """
    _animate(path, [f"Epoch: {epoch}" for epoch in np.asarray(epochs).tolist()], examples, shape, FRAME_MS)


def reverse_trajectory(path: Path | str, times: ArrayLike, states: ArrayLike, *, shape: tuple[int, int] | None = None) -> None:
    """Animate (GIF) one reverse pass, from noise to clean rows, in about ten seconds. The last frame is held for three more.

    Parameters
    ----------
    times : (K,) int, K >= 1, decreasing from T to 0: the time of each state. Of more than 100, 100 are shown, evenly spread.
    states : (K, n, D) of 0 and 1
    shape : (h, w), see `samples`

    Raises
    ------
    ValueError : as `samples`, or as many times as states are not there.
    """
    titles = [f"t = {time}" for time in np.asarray(times).tolist()]
    _animate(path, titles, states, shape, min(FRAME_MS, 10000 // min(MAX_FRAMES, max(1, len(titles)))))


def _animate(path: Path | str, titles: list[str], rows: ArrayLike, shape: tuple[int, int] | None, frame_ms: int) -> None:
    rows = np.asarray(rows)
    if not len(titles) or len(titles) != len(rows):
        raise ValueError(f"{len(titles)} titles for {len(rows)} frames: one for each, and at least one frame, are needed")
    chosen = np.unique(np.linspace(0, len(titles) - 1, min(MAX_FRAMES, len(titles))).round().astype(int))
    first, *rest = _frames(rows[chosen], [titles[i] for i in chosen], shape)
    duration = [frame_ms] * len(rest) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    write_whole(path, buffer.getvalue())


def _frames(rows: np.ndarray, titles: list[str], shape: tuple[int, int] | None) -> list[Image]:
    """(F, n, D) bits and F titles to F pictures of one size, in GREYS levels of grey."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    if rows.ndim != 3 or 0 in rows.shape:
        raise ValueError(f"rows of bits must have shape (n, D) with n and D at least 1, not {rows.shape[1:]}")
    n, D = rows.shape[1:]
    if shape is not None and shape[0] * shape[1] != D:
        raise ValueError(f"an image of {shape[0]} x {shape[1]} does not hold the {D} bits of a row")
    fonts = Path(matplotlib.get_data_path(), "fonts", "ttf")
    title_font, note_font = (ImageFont.truetype(str(fonts / f"DejaVuSans{bold}.ttf"), size) for bold, size in (("-Bold", 22), ("", 15)))
    bits = f"{D} bit{'s' * (D > 1)}" if shape is None else f"{shape[0]} × {shape[1]} bits"
    note = f"{n} row{'s' * (n > 1)} of {bits}, black = 1"

    boards = [_board(frame, shape) for frame in rows]
    height, width = boards[0].shape
    margin, head, foot = 16, 36 if any(titles) else 0, 28
    text_width = max(note_font.getlength(note), *(title_font.getlength(title) for title in titles))
    full = int(max(width, text_width)) + 2 * margin, height + head + foot + 2 * margin
    palette = [grey for level in range(GREYS) for grey in [255 * level // (GREYS - 1)] * 3]
    pictures = []
    for board, title in zip(boards, titles, strict=True):
        page = Image.new("L", full, 255)
        pen = ImageDraw.Draw(page)
        pen.text((margin, margin + 22), title, fill=0, font=title_font, anchor="ls")
        pen.text((margin, margin + head + height + 22), note, fill=90, font=note_font, anchor="ls")
        levels = np.rint(np.asarray(page) * ((GREYS - 1) / 255)).astype(np.uint8)
        levels[margin + head : margin + head + height, margin : margin + width] = board
        picture = Image.frombytes("P", full, levels.tobytes())
        picture.putpalette(palette)
        pictures.append(picture)
    return pictures


def _board(rows: np.ndarray, shape: tuple[int, int] | None) -> np.ndarray:
    """(n, D) bits to a (height, width) uint8 array of levels: one tile a row, each bit a rectangle of whole pixels."""
    n, D = rows.shape
    if shape is None:
        lines = -(-D // MAX_LINE)
        tile_h, tile_w, columns = lines, -(-D // lines), 1
        cell_h = max(1, min(24, BOARD_HEIGHT // (n * lines)))
        cell_w = max(1, min(24, BOARD_WIDTH // tile_w, 2 * cell_h))
        cell_h = min(cell_h, max(12, cell_w))
        gap = 2 if cell_h >= 4 else 1
    else:
        tile_h, tile_w = shape

        def ugliness(c: int) -> float:  # far from 3:2, and places left empty
            return abs(math.log(c * tile_w / (-(-n // c) * tile_h) / 1.5)) + 3 * (-n % c) / n + 0.3 * (n % c > 0)

        columns = min(range(1, n + 1), key=ugliness)
        cell_h = cell_w = max(1, min(24, BOARD_WIDTH // (columns * tile_w), BOARD_HEIGHT // (-(-n // columns) * tile_h)))
        gap = 4
    across = -(-n // columns)

    levels = np.full((across * columns, tile_h * tile_w), LINE, dtype=np.uint8)
    levels[:n, :D] = np.where(rows, ONE, ZERO)
    tiles = levels.reshape(-1, tile_h, tile_w).repeat(cell_h, axis=1).repeat(cell_w, axis=2)
    if shape is None and cell_w >= 4:
        tiles[:, :, cell_w - 1 : -1 : cell_w] = LINE
    board = np.full((across * (tile_h * cell_h + gap) + gap, columns * (tile_w * cell_w + gap) + gap), LINE, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = gap + i // columns * (tile_h * cell_h + gap), gap + i % columns * (tile_w * cell_w + gap)
        board[y : y + tile_h * cell_h, x : x + tile_w * cell_w] = tile
    return board


# Shared by the curves ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _figure(path: Path | str, height: float, panels: Sequence[float] = (1.0,)) -> Iterator[list[Any]]:
    """Axes one above the other with a common x axis, room for labels at the right, written to `path` as PNG on leaving."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the user's own matplotlibrc must not change the pictures of a run
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(7.2, height))
        place = {"left": 0.115, "right": 0.715, "top": 1 - 0.15 / height, "bottom": 0.55 / height, "hspace": 0.14}
        grid = figure.add_gridspec(len(panels), 1, height_ratios=panels, **place)
        axes: list[Any] = []
        for i in range(len(panels)):
            axes.append(figure.add_subplot(grid[i], sharex=axes[0] if axes else None))
            axes[i].tick_params(labelbottom=i == len(panels) - 1)
        yield axes
        if len(axes) > 1:
            figure.align_ylabels(axes)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def _x_axis(axes: Sequence[Any], x: np.ndarray, label: str, from_zero: bool = False) -> None:
    """Limits at the data's ends, whole numbers with a thin space between thousands, the label under the lowest panel."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low, high = (0.0 if from_zero else float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    axes[-1].set_xlim(low, high if high > low else low + 1)
    axes[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}".replace(",", "\u2009")))
    axes[-1].set_xlabel(label)


def _labels_at_right(ax: Any, labels: Sequence[tuple[float, str, str]]) -> None:
    """Write (y, text, colour) beside the right end of the axis, each at its y, moved apart where they would touch."""
    labels = sorted(labels, key=lambda label: label[0])
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


def _loss_limits(curves: Sequence[tuple[np.ndarray, np.ndarray]], rules: Sequence[float], noisy: np.ndarray) -> tuple[float, float, bool]:
    """Bottom and top of the loss axis, and whether the top cuts off the beginning.

    What comes after the first 15 % of the steps must be readable, and so must the rules. The beginning is shown whole as long as it is
    less than eight times as high as that. The noise gets a little room of its own, not all that it would take.
    """
    if not curves:
        return 0.0, 1.1 * max(rules, default=1.0), False
    settled = np.concatenate([*(y[x >= x[0] + 0.15 * (x[-1] - x[0])] for x, y in curves), np.asarray(rules, dtype=np.float64)])
    low, high, peak = float(settled.min()), float(settled.max()), max(float(y.max()) for _, y in curves)
    cut = peak - low > 8 * (high - low) > 0 and float(curves[0][1][0]) > high + 0.14 * (high - low)
    if not cut:
        high = max(high, peak)
    span = high - low or max(0.1 * abs(high), 0.1)
    tail = noisy[len(noisy) // 2 :] if len(noisy) else settled
    down, up = np.quantile(tail, [0.02, 0.98])
    bottom = low - min(max(0.06 * span, low - down), 0.2 * span)
    return bottom, high + max(min(up - high, 0.2 * span), (0.14 if cut else 0.06) * span), cut


def _log_axis(ax: Any, low: float, high: float) -> None:
    """Limits and ticks of a log y axis: powers of ten, with 2 and 5 as plain numbers between where fewer than two decades are shown."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_ylim(low, high)
    if high < 100 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _log_limits(drawn: Sequence[np.ndarray], decades: int) -> tuple[float, float]:
    """Limits of a log axis around the positive values, all but the lowest hundredth, at most `decades` below the highest."""
    drawn = [y[y > 0] for y in drawn if (y > 0).any()]
    if not drawn:
        return 0.1, 1.0
    high = max(float(y.max()) for y in drawn)
    low = max(min(float(np.quantile(y, 0.01)) for y in drawn), high * 10.0**-decades)
    if high < 10 * low:  # less than a decade: make it one, so that noise is not blown up
        centre = np.sqrt(high * low)
        low, high = centre / np.sqrt(10), centre * np.sqrt(10)
    return low / 1.5, high * 1.5


def _finite_pairs(x: ArrayLike, y: ArrayLike, x_name: str, y_name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{x_name} has shape {x.shape}, {y_name} has {y.shape}: two lists of one length are needed")
    kept = np.isfinite(x) & np.isfinite(y)
    return x[kept], y[kept]


def _running_mean(y: np.ndarray) -> np.ndarray:
    """Mean over the neighbours at each side: as many as an eighth of the way from the start, but at most 1/16 of all.

    A window that grows with the step keeps the steep beginning steep.
    """
    i = np.arange(len(y))
    reach = np.minimum(np.minimum(i, 3 + i // 8), len(y) // 16)
    total = np.concatenate([[0.0], np.cumsum(y)])
    first, last = i - reach, np.minimum(i + reach + 1, len(y))
    return (total[last] - total[first]) / (last - first)


def _bin_mean(t: np.ndarray, y: np.ndarray, weight: np.ndarray, last: float, bins: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of t and y in equal ranges of 0.5..last + 0.5; empty ranges are left out."""
    index = np.minimum((bins * (t - 0.5) / last).astype(int), bins - 1)
    total = np.bincount(index, weight, bins)
    filled = total > 0
    return tuple(np.bincount(index, weight * v, bins)[filled] / total[filled] for v in (t, y))  # type: ignore[return-value]


def _number(value: float) -> str:
    """About four digits, without an exponent, for a label."""
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{decimals}f}".replace(",", "\u2009")


def _dot(x: np.ndarray) -> dict[str, Any]:
    """A line of one point is drawn as a dot, whole even on the edge of the axes."""
    return {"marker": "o", "clip_on": False} if len(x) == 1 else {}
