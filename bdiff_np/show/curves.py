"""The curves of a run: arrays in, one PNG file out, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bdiff_np.show.figure import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGEST,
    OCHRE,
    ORANGE,
    PALE,
    VERMILION,
    dot,
    drawable,
    figure,
    labels_at_right,
    log_axis,
    log_limits,
    number,
    x_axis,
)  # fmt: skip


def loss_curve(
    path: Path | str,
    step: ArrayLike,
    loss_bits: ArrayLike,
    *,
    val_step: ArrayLike | None = None,
    val_bits: ArrayLike | None = None,
    floor_bits: float | None = None,
    null_bits: float | None = None,
    null_name: str = "null model",
) -> None:
    """Draw the bound against the optimiser step; where the floor is known, a second panel shows the distance to it on a
    log scale.

    The upper axis is linear and cut above the part that matters: an untrained net may start ten or a thousand times
    higher, and then the picture says where it started. The thick training line, and the figure at its end, are a
    running mean. Points that are not finite, or beyond 1e100, are left out.

    Parameters
    ----------
    step, loss_bits : (N,) optimiser steps, increasing, and the training bound in bits per example (noisy estimates); N
        may be 0
    val_step, val_bits : (M,) the same for the held-out rows; both or neither
    floor_bits : the exact floor of the bound, bits per example
    null_bits, null_name : the code length of a simple model, bits per example, and how the picture names it

    Raises
    ------
    ValueError : arrays of different lengths.
    """
    step, loss = _drawable_pairs(step, loss_bits, "step", "loss_bits")
    val_x, val_y = _drawable_pairs(
        [] if val_step is None else val_step, [] if val_bits is None else val_bits, "val_step", "val_bits"
    )
    smooth = _running_mean(loss)
    curves = [("training", step, smooth, BLUE), ("validation", val_x, val_y, VERMILION)]
    curves = [curve for curve in curves if len(curve[1])]
    levels = [("exact floor", floor_bits, INK), (null_name, null_bits, GREY)]
    rules = [(text, y, colour) for text, y, colour in levels if y is not None and drawable(np.float64(y))]
    height, panels = (3.8, [1.0]) if floor_bits is None else (5.2, [2.2, 1.0])

    with figure(path, height, panels) as axes:
        main = axes[0]
        main.plot(step, loss, color=BLUE, alpha=0.3, linewidth=0.6)
        for _, x, y, colour in curves:
            main.plot(x, y, color=colour, **dot(x))
        for _, bits, colour in rules:
            main.axhline(bits, color=colour, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
        bottom, top, cut = _loss_limits([(x, y) for _, x, y, _ in curves], [y for _, y, _ in rules], loss)
        main.set_ylim(bottom, top)
        if cut:
            _, x, y, colour = curves[0]
            enters = float(x[np.argmax(y < top)])
            note = f"starts at {number(y[0])}"
            main.annotate(
                note, (enters, top), (8, -1), textcoords="offset points", color=colour, fontsize=9.5, va="top"
            )
        main.set_ylabel("bound (bits)")
        x_axis(
            axes,
            np.concatenate([x for _, x, _, _ in curves]) if curves else np.zeros(1),
            "optimiser step",
            from_zero=True,
        )
        labels_at_right(
            main, [(y, f"{text} {number(y)}", c) for text, y, c in [*((n, y[-1], c) for n, _, y, c in curves), *rules]]
        )

        if floor_bits is not None:
            gap = axes[1]
            gap.set_yscale("log")
            ends, drawn = [], []
            for text, x, y, colour in curves:
                # chance may take an estimate below the floor: a gap
                above = np.where(y > floor_bits, y - floor_bits, np.nan)
                gap.plot(x, above, color=colour, **dot(x))
                drawn.append(above)
                if y[-1] > floor_bits:
                    ends.append((above[-1], f"{text} {above[-1]:.2g}", colour))
            log_axis(gap, *log_limits(drawn, decades=5))
            gap.set_ylabel("above floor (bits)")
            labels_at_right(gap, ends)


def validation(
    path: Path | str, epoch: ArrayLike, proportions: Mapping[str, ArrayLike], *, best_possible: float | None = None
) -> None:
    """Draw, over the epochs, which share of the samples is a row of train.txt, of val.txt, a valid row in neither, or
    none of these.

    Parameters
    ----------
    epoch : (E,) epochs, increasing; E may be 0 or 1
    proportions : lists of E shares in 0..1 that sum to 1, by name; "train", "val", "valid_unseen" and "other" have
        colours of their own. Where "valid_unseen" is given, "other" means invalid. A "val" of zeros only is left out:
        there was no val.txt.
    best_possible : the share of valid rows that the exact denoiser reaches with as many steps; the top of the coloured
        areas aims at it

    Raises
    ------
    ValueError : lists of different lengths.
    """
    epoch = np.asarray(epoch, dtype=np.float64)
    known = {
        "train": ("in train", BLUE, BLUE),
        "val": ("in val", ORANGE, OCHRE),
        "valid_unseen": ("valid, unseen", GREEN, GREEN),
    }
    others = [name for name in proportions if name not in known and name != "other"]
    known |= {name: (name, colour, colour) for name, colour in zip(others, cycle((GREEN, ORANGE, BLUE)))}
    known["other"] = ("invalid" if "valid_unseen" in proportions else "other", PALE, GREY)
    shares = {name: np.asarray(proportions[name], dtype=np.float64) for name in known if name in proportions}
    for name, share in shares.items():
        if share.shape != epoch.shape:
            raise ValueError(f"proportions[{name!r}] has shape {share.shape}, epoch has {epoch.shape}")
    if "val" in shares and not shares["val"].any():
        del shares["val"]

    with figure(path, height=3.8) as axes:
        main = axes[0]
        labels, below = [], np.zeros(len(epoch))
        # one epoch is a column one epoch wide
        x = np.array([epoch[0] - 0.5, epoch[0] + 0.5]) if len(epoch) == 1 else epoch
        for name, share in shares.items():
            text, colour, letters = known[name]
            above = below + share
            main.fill_between(
                x,
                100 * np.broadcast_to(below, x.shape),
                100 * np.broadcast_to(above, x.shape),
                color=colour,
                linewidth=0,
            )
            if len(epoch):
                labels.append((50 * (below[-1] + above[-1]), f"{text} {100 * share[-1]:.1f} %", letters))
            below = above
        if best_possible is not None:
            main.axhline(100 * best_possible, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
            labels.append((100 * best_possible, f"best valid {100 * best_possible:.1f} %", INK))
        main.set_ylim(0, 100)
        main.set_ylabel("share of samples (%)")
        x_axis(axes, x, "epoch")
        if len(epoch) == 1:
            main.set_xticks(epoch)
        labels_at_right(main, labels)


def kl_per_step(
    path: Path | str, t: ArrayLike, kl_bits: ArrayLike, *, floor_kl_bits: ArrayLike | None = None, T: int | None = None
) -> None:
    """Draw what each step of the chain costs, and how the bound builds up over the steps.

    More than 100 steps are averaged in 50 equal ranges of t: single steps are Monte Carlo estimates and too noisy to
    read.

    Parameters
    ----------
    t : (N,) int steps of the chain, increasing, within 1..T; normally all of 1..T. A step left out counts as its
        nearest neighbour.
    kl_bits : (N,) mean KL of that step, bits per example; what is not finite, or beyond 1e100, is left out, and the
        shares with it
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

    with figure(path, height=5.2, panels=(1.5, 1.0)) as axes:
        main, share = axes
        main.set_yscale("log")
        ends, drawn = [], []
        for text, kl, colour in curves:
            x, y = _bin_mean(t, kl, width, last) if len(t) > 100 else (t, kl)
            positive = drawable(y) & (y > 0)
            dashes: Any = "-" if text == "model" else (0, (4, 2.5))
            main.plot(x[positive], y[positive], color=colour, linestyle=dashes, **dot(x))
            drawn.append(y[positive])
            total = float(np.sum(kl * width))
            if positive.any():
                ends.append((y[positive][-1], f"{text}, sum {number(total)}", colour))
            if 0 < total <= LARGEST:
                part = 100 * np.cumsum(kl * width) / total
                share.plot([0.0, *t], [0.0, *part], color=colour, linestyle=dashes)
                if text == "model":
                    half = float(t[np.searchsorted(part, 50.0)])
                    share.plot([half, half, 0], [0, 50, 50], color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
                    note = f"half of it in t ≤ {half:.0f}"
                    share.annotate(
                        note, (half, 50), (8, -4), textcoords="offset points", color=GREY, fontsize=9.5, va="top"
                    )
        log_axis(main, *log_limits(drawn, decades=6))
        main.set_ylabel("KL of one step (bits)")
        share.set_ylim(0, 100)
        share.set_ylabel("sum over 1..t (%)")
        x_axis(axes, np.array([1.0, last]), "step t of the chain", from_zero=True)
        labels_at_right(main, ends)


def _loss_limits(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], rules: Sequence[float], noisy: np.ndarray
) -> tuple[float, float, bool]:
    """Bottom and top of the loss axis, and whether the top cuts off the beginning.

    What comes after the first 15 % of the steps must be readable, and so must the rules. The beginning is shown whole
    as long as it is less than eight times as high as that. The noise gets a little room of its own, not all that it
    would take.
    """
    if not curves:
        return 0.0, 1.1 * max(rules, default=1.0), False
    settled = np.concatenate(
        [*(y[x >= x[0] + 0.15 * (x[-1] - x[0])] for x, y in curves), np.asarray(rules, dtype=np.float64)]
    )
    low, high, peak = float(settled.min()), float(settled.max()), max(float(y.max()) for _, y in curves)
    cut = peak - low > 8 * (high - low) > 0 and float(curves[0][1][0]) > high + 0.14 * (high - low)
    if not cut:
        high = max(high, peak)
    span = high - low or max(0.1 * abs(high), 0.1)
    tail = noisy[len(noisy) // 2 :] if len(noisy) else settled
    down, up = np.quantile(tail, [0.02, 0.98])
    bottom = low - min(max(0.06 * span, low - down), 0.2 * span)
    return bottom, high + max(min(up - high, 0.2 * span), (0.14 if cut else 0.06) * span), cut


def _drawable_pairs(x: ArrayLike, y: ArrayLike, x_name: str, y_name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"{x_name} has shape {x.shape}, {y_name} has {y.shape}: two lists of one length are needed")
    kept = drawable(x) & drawable(y)
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


def _bin_mean(
    t: np.ndarray, y: np.ndarray, weight: np.ndarray, last: float, bins: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of t and y in equal ranges of 0.5..last + 0.5; empty ranges are left out."""
    index = np.minimum((bins * (t - 0.5) / last).astype(int), bins - 1)
    total = np.bincount(index, weight, bins)
    filled = total > 0
    return tuple(np.bincount(index, weight * v, bins)[filled] / total[filled] for v in (t, y))  # type: ignore[return-value]
