"""The pictures that a model of points gets beside those of its samples (`points_pictures.more`), as PNG.

All are in the data's units and in the axes that suit the training points; of more than two coordinates the first two
are drawn. What is not finite is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bdiff_np import rng, sample
from bdiff_np.rng import Key
from bdiff_np.runfolder.files import write_own
from bdiff_np.runfolder.progress import progress
from bdiff_np.show.figure import BLUE, GREY, INK, PALE, VERMILION, page, png
from bdiff_np.show.points_pictures import Limits, bars, dress, limits, opacity

SAMPLES, STEPS = 20_000, 250  # samples of the density; steps of the chain for them, at most
DOTS, PATHS, ARROWS = 2000, 60, 19  # points of a panel; reverse paths; arrows along an axis
DARK = "#06283D"
SIDE, LEFT, GAP, HEAD, FOOT = 2.4, 0.5, 0.25, 0.4, 0.35  # inches: a panel, and what is around panels


def density(path: Path, *, run: Any, model: Any, rows: np.ndarray) -> None:
    """Heat maps of the training points and of samples, side by side in one colour scale, the root of the share of the
    points in a cell; of one coordinate, histograms.

    rows : samples (n, D); fewer than 20,000 are not enough, and so many are drawn, with 250 steps of the chain at most
    where the family can leave out steps
    """
    x0, steps = _training(run, 100_000), None
    if len(rows) < SAMPLES:
        if model.chain.T > STEPS and model.family.all_steps(model.config.model) is None:
            steps = STEPS
        batches = -(-SAMPLES // sample.rows_at_once(model))
        with progress((steps or model.chain.T) * batches, f"drawing {SAMPLES} samples for {path.name}") as bar:
            seed = run.settings.training.seed + 1
            rows = sample.draw(model, SAMPLES, seed=seed, steps=steps, progress=bar.update)
    few = f", {steps} of {model.chain.T} steps" if steps else ""
    titles = [f"{_count(len(x0))} training points", f"{_count(len(rows))} samples{few}"]
    box = limits(x0)
    with _panels(path, 1, 2, box, model.D, titles, side=3.2) as axes:
        if model.D == 1:
            for ax, points in zip(axes[0], (x0, rows), strict=True):
                _histogram(ax, points, box)
            return
        cells = int(np.clip(np.sqrt(min(len(x0), len(rows))), 24, 100))
        maps = [_shares(points, box, cells) for points in (x0, rows)]
        # a model that has collapsed to a point must not fade the data
        most = maps[0].max() or 1.0
        for ax, cell in zip(axes[0], maps, strict=True):
            ax.imshow(
                np.sqrt(cell.T), cmap=_colours("white", BLUE, DARK), vmin=0, vmax=np.sqrt(most), origin="lower",
                extent=np.stack(box).T.ravel(), aspect="auto", interpolation="nearest",
            )  # fmt: skip


def triptych(path: Path, *, run: Any, model: Any) -> None:
    """The forward process q from training points, above the learned reverse process p, at the same times t = 0, T/2 and
    T: figure 1 of Sohl-Dickstein et al. 2015."""
    x0, box = _training(run, DOTS), limits(_training(run))
    seed = run.settings.training.seed
    times, states = sample.trajectory(model, len(x0), seed=seed, frames=3)
    times, states = times[::-1], states[::-1]
    forward = np.stack([x0, *(_diffused(model, x0, t, seed) for t in times[1:])])
    names = [_time(t, model.chain.T) for t in times]
    with _panels(path, 2, len(times), box, model.D, names) as axes:
        for row, name, panels in zip(axes, ("forward, q", "reverse, p"), np.stack([forward, states]), strict=True):
            for ax, points in zip(row, panels, strict=True):
                _draw(ax, points, box)
            row[0].set_ylabel(name)


def trajectories(path: Path, *, run: Any, model: Any) -> None:
    """Reverse paths from noise (rings) to data (dots) over the training points, the bluer the more of the data's signal
    there is at their time. A path is a running mean over a tenth of its states, less towards its ends: the noise of
    single steps would hide it. Those that leave the picture by far are left out."""
    from matplotlib.collections import LineCollection

    x0, box = _training(run, DOTS), limits(_training(run))
    times, states = sample.trajectory(model, PATHS, seed=run.settings.training.seed)
    off = np.abs(states - (box.low + box.high) / 2)
    states = states[:, (off < 10 * (box.high - box.low)).all((0, 2))]  # (F, n, 2)
    i = np.arange(len(times))
    reach = np.minimum(len(i) // 20, np.minimum(i, i[::-1]))
    smooth = np.stack([states[k - r : k + r + 1].mean(0) for k, r in zip(i, reach, strict=True)])
    lines = np.stack([smooth[:-1], smooth[1:]], axis=2).reshape(-1, 2, 2)
    signal = np.sqrt(model.chain.alpha_bar[times[1:]]).repeat(states.shape[1])
    with _panels(path, 1, 1, box, model.D, [f"{states.shape[1]} reverse paths"], side=4.4) as ((ax,),):
        _dots(ax, x0, box, PALE)
        colours = _colours(PALE, BLUE)(signal)  # (S, 4)
        colours[:, 3] = signal
        ax.add_collection(LineCollection(list(lines), colors=colours, linewidths=0.7))
        ax.plot(*states[0].T, "o", color="white", markeredgecolor=GREY, markeredgewidth=0.6, markersize=3)
        ax.plot(*states[-1].T, "o", color=VERMILION, markeredgewidth=0, markersize=4, zorder=3)


def drift_field(path: Path, *, run: Any, model: Any) -> None:
    """Where the reverse process takes a point in one step on average, as arrows at t = T/10, T/2 and T, over points of
    the forward process. The arrows of each panel have a scale
    of their own, and lengths by the root of the drift's.

    The family's drift(chain, settings, out, x_t, t) is mu_p(x_t) - x_t, (B, D) in the chain's units; settings : section
    `model`.
    """
    T, box, x0 = model.chain.T, limits(_training(run)), _training(run, DOTS)
    grid = [np.linspace(low, high, ARROWS + 2)[1:-1] for low, high in np.stack(box).T]
    at = np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2)
    x = model.family.from_data(model.chain, at).astype(model.x_dtype)
    cell = (box.high - box.low) / (ARROWS + 1)
    times = sorted({max(1, T // 10), max(1, T // 2), T})
    with _panels(path, 1, len(times), box, 2, [_time(t, T) for t in times]) as axes:
        for ax, t in zip(axes[0], times, strict=True):
            every, to_device = np.full(len(x), t), model.ops.asarray
            with model.threads:
                out = model.ops.to_host(model.output(to_device(x), to_device(model.chain.time[every])))
            drift = model.family.drift(model.chain, model.config.model, out, x, every)
            arrows = model.family.to_data(model.chain, x + drift) - model.family.to_data(model.chain, x)
            arrows /= cell
            length = np.hypot(*arrows.T)
            drawn = np.isfinite(length) & (length > 0)
            _dots(ax, _diffused(model, x0, t, run.settings.training.seed), box, PALE)
            if drawn.any():
                long = np.quantile(length[drawn], 0.95)
                arrows *= 1.2 * cell * np.minimum(np.sqrt(length / long), 1)[:, None] / length[:, None]
                ax.quiver(
                    *at[drawn].T, *arrows[drawn].T, angles="xy", scale_units="xy", scale=1, color=BLUE, width=0.004,
                    headwidth=4, headlength=4.5, headaxislength=4, minlength=0.5,
                )  # fmt: skip


# Parts
# ----------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _panels(
    path: Path, rows: int, columns: int, box: Limits, D: int, titles: list[str], side: float = SIDE
) -> Iterator[list[list[Any]]]:
    """Square axes with the same limits in rows and columns, a title above each column, figures at the outer ones;
    of histograms, the same height too; written to `path` as PNG on leaving."""
    foot = FOOT + 0.2 * (D > 2)
    width, height = LEFT + columns * (side + GAP), HEAD + rows * (side + GAP) - GAP + foot
    with page(width, height) as sheet:
        axes: list[list[Any]] = []
        for i in range(rows):
            axes.append([])
            for j in range(columns):
                bottom = foot + (rows - 1 - i) * (side + GAP)
                ax = sheet.add_axes(((LEFT + j * (side + GAP)) / width, bottom / height, side / width, side / height))
                dress(ax, box)
                ax.tick_params(labelbottom=i == rows - 1, labelleft=j == 0)
                axes[i].append(ax)
        for ax, title in zip(axes[0], titles, strict=True):
            ax.set_title(title, fontsize=11, color=INK, pad=8)
        if D > 2:
            sheet.text(
                1 - GAP / width, 0.06 / height, f"coordinates 1 and 2 of {D}", fontsize=9, color=GREY, ha="right"
            )
        yield axes
        if len(box.low) == 1:
            top = max(ax.get_ylim()[1] for row in axes for ax in row)
            for row in axes:
                for ax in row:
                    ax.set_ylim(0, top)
        picture = png(sheet)
    write_own(path, picture)


def _training(run: Any, n: int | None = None) -> np.ndarray:
    """n training points, or all if they are fewer, evenly spread over the file, float64."""
    many = len(run.train_rows)
    return run.train_rows.take(np.linspace(0, many - 1, min(many, n or 100_000)).astype(np.int64)).astype(np.float64)


def _diffused(model: Any, x0: np.ndarray, t: int, seed: int) -> np.ndarray:
    """x_t ~ q(x_t | x_0) in the data's units; the same noise for all t."""
    noise = model.family.noise(Key(seed, rng.Q_NOISE, 0), *x0.shape)
    return model.family.to_data(model.chain, model.family.q_sample(model.chain, x0, np.full(len(x0), t), noise))


def _time(t: int, T: int) -> str:
    name = "0" if t == 0 else "T" if t == T else "T/2" if abs(2 * t - T) <= 1 else "T/10" if 10 * t == T else t
    return f"t = {name}"


def _count(n: int) -> str:
    return f"{n:,}".replace(",", "\u2009")


def _draw(ax: Any, points: np.ndarray, box: Limits) -> None:
    """A scatter, or of one coordinate a histogram."""
    if points.shape[1] == 1:
        _histogram(ax, points, box)
    else:
        _dots(ax, points, box, BLUE, opacity(len(points))[0])


def _dots(ax: Any, points: np.ndarray, box: Limits, colour: str, strength: float = 1.0) -> None:
    across = ax.figure.get_figwidth() * ax.get_position().width * 72  # of the panel, in the units of a dot's diameter
    size = (2 * opacity(len(points))[1] * across) ** 2
    ax.scatter(*box.inside(points[:, :2]).T, s=size, color=colour, alpha=strength, linewidths=0, zorder=0)


def _histogram(ax: Any, points: np.ndarray, box: Limits) -> None:
    """Of shares of the points; outside of the axes are the rest."""
    share, edges = np.histogram(box.inside(points), bars(len(points)), (box.low[0], box.high[0]))
    ax.stairs(share / len(points), edges, fill=True, color=BLUE, alpha=0.75)


def _shares(points: np.ndarray, box: Limits, cells: int) -> np.ndarray:
    """Of all points, those in each cell of the axes, (cells, cells)."""
    x, y = box.inside(points[:, :2]).T
    return np.histogram2d(x, y, cells, np.stack(box).T.tolist())[0] / len(points)


def _colours(*names: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("", names)
