"""What the speed benchmark's figures look like: Markdown tables and one picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contestants import Entry, Problem

HEAD = (
    "| contestant | set-up, s | us/step | min to max | rows/s | GFLOP/s | of sgemm | time / {base}'s |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|"
)


def figures(problem: Problem, setup: float, seconds: Sequence[float]) -> dict[str, Any]:
    """One contestant's figures, from the seconds per step of each repetition."""
    step = statistics.median(seconds)
    return {
        "setup_s": setup, "us": [1e6 * s for s in seconds], "us_median": 1e6 * step,
        "rows_per_s": problem.size.batch / step, "gflops": 1e-9 * problem.flop / step,
    }  # fmt: skip


def steps_table(found: Mapping[str, dict[str, Any]], sgemm: float) -> str:
    """A size's table: contestants in their order, each one's time also in units of the base's. sgemm : GFLOP/s of the
    machine"""
    base = base_of(found)
    lines = [HEAD.format(base=base)]
    for name, f in found.items():
        cells = (
            name, f"{f['setup_s']:.1f}", short(f["us_median"]), f"{short(min(f['us']))} to {short(max(f['us']))}",
            f"{f['rows_per_s']:,.0f}", short(f["gflops"]), f"{f['gflops'] / sgemm:.0%}",
            f"{f['us_median'] / found[base]['us_median']:.2f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def base_of(found: Mapping[str, Any]) -> str:
    """The contestant that others are compared with: numba, or else the first."""
    return "numba" if "numba" in found else next(iter(found))


def verdict(found: Mapping[str, dict[str, Any]], entries: Sequence[Entry], key: str = "us_median") -> str:
    """Against the best mode of each peer, and so against the best peer: how many times as long as the base it takes."""
    base, best = base_of(found), {}
    for entry in entries:
        if entry.owner and entry.name in found:
            best[entry.owner] = min(best.get(entry.owner, entry.name), entry.name, key=lambda name: found[name][key])
    if not best:
        return "No peer was measured."
    times = {owner: found[name][key] / found[base][key] for owner, name in best.items()}
    first = min(times, key=times.__getitem__)
    each = "; ".join(
        f"{owner}'s best mode, {best[owner]}, takes {ratio:.2f} times as long as {base}"
        for owner, ratio in times.items()
    )
    return f"{each}. Best peer: {first}, {times[first]:.2f}."


def sampler_table(found: Mapping[str, dict[str, Any]], n: int, lengths: Sequence[int]) -> str:
    """Rows per second through the whole chain and the short one."""
    base = base_of(found)
    head = " | ".join(f"rows/s, {K} steps | time / {base}'s" for K in lengths)
    lines = [f"| sampler, {n} rows at once | {head} |", "|---" + "|--:" * 2 * len(lengths) + "|"]
    for name, f in found.items():
        cells = (f"{n / f[str(K)]:,.0f} | {f[str(K)] / found[base][str(K)]:.2f}" for K in lengths)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scaling_table(found: Mapping[str, Mapping[str, float]], what: str) -> str:
    """us per step: contestants down, points across."""
    points = list(dict.fromkeys(point for curve in found.values() for point in curve))
    lines = [f"| us/step at {what} | {' | '.join(points)} |", "|---" + "|--:" * len(points) + "|"]
    for name, curve in found.items():
        lines.append(f"| {name} | {' | '.join(short(curve[point]) if point in curve else '-' for point in points)} |")
    return "\n".join(lines)


def short(value: float) -> str:
    """Three digits, more for large numbers."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def picture(path: Path, panels: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]]) -> None:
    """Steps per second, one panel for each scaling: (label of the axis, contestant -> point -> us). Both axes are
    logarithmic."""
    import matplotlib
    from matplotlib.figure import Figure

    from bdiff_np.runfolder.files import write_whole
    from bdiff_np.show.figure import BLUE, GREEN, GREY, ORANGE, STYLE, VERMILION

    colours = (GREY, BLUE, VERMILION, ORANGE, GREEN, "#CC79A7", "#56B4E9")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True)
        for ax, (label, curves) in zip(axes, panels):
            for colour, (name, curve) in zip(colours, curves.items()):
                ax.loglog(
                    [int(point) for point in curve],
                    [1e6 / us for us in curve.values()],
                    color=colour,
                    marker="o",
                    markersize=3.5,
                    label=name,
                )
            points = sorted({int(point) for curve in curves.values() for point in curve})
            ax.set_xscale("log", base=2)
            ax.set_xticks(points, [str(point) for point in points])
            ax.minorticks_off()
            ax.set_xlabel(label)
        axes[0].set_ylabel("training steps per second")
        axes[0].legend(frameon=False, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_whole(path, buffer.getvalue())
