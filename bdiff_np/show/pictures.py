"""Which pictures a run gets: curves for every family, and pictures of examples where its kind of data has a
show/<kind>_pictures.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bdiff_np import evaluate, sample
from bdiff_np.show import curves


def draw(run, model, bound: evaluate.Bound, rows: np.ndarray) -> None:
    """Draws all pictures of a run.Run into its results folder. bound : of the training rows. rows : samples, (n, D)

    Each is drawn on its own: one that fails costs a line on stderr and neither the others nor the conclusion.
    """
    for name, paint in _pictures(run, model, bound, rows):
        try:
            with np.errstate(all="ignore"):  # what a model far off says may overflow: it is left out of the picture
                paint(run.results / name)
        except Exception as fault:
            _not_drawn(run.results / name, fault)


def _not_drawn(what: Path | str, fault: Exception) -> None:
    reason = str(fault).splitlines()[0] if str(fault) else "no reason given"
    print(f"{what}: not drawn: {type(fault).__name__}: {reason}", file=sys.stderr, flush=True)


def _pictures(run, model, bound: evaluate.Bound, rows: np.ndarray) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The name of each picture, and what draws it to a path."""
    data = run.train_rows.with_file(run.settings.data)
    examples = of_examples(model.family.data)
    if run.epoch:
        yield "loss_curve.png", partial(_loss_curve, run, model, bound)
    seen, frames = run.history.looked_at()
    if frames:
        if run.history.census and run.settings.training.num_val_samples:
            yield "validation.png", lambda path: curves.validation(path, seen["epoch"], run.history.census.stack(seen))
        if examples:
            yield (
                "sample_evolution_throughout_training.gif",
                lambda path: examples.sample_evolution(path, seen["epoch"], np.stack(frames), data),
            )
    if examples:
        yield "reverse_trajectory.gif", partial(_reverse_trajectory, run, model, examples)
        yield "samples.png", lambda path: examples.samples(path, rows[: examples.shown(data)], data)
    yield "kl_per_step.png", partial(_kl_per_step, run, model, bound)
    if hasattr(examples, "more"):
        try:
            yield from examples.more(run, model, rows)
        except Exception as fault:  # of what names them
            _not_drawn(f"{run.results}: more pictures of {model.family.data}", fault)


def _loss_curve(run, model, bound: evaluate.Bound, path: Path) -> None:
    h, has_val = run.history.columns, run.val_rows is not None
    name, nats = model.family.baseline(run.train_rows) or ("", None)
    curves.loss_curve(
        path, h["step"], h["loss_bits"], val_step=h["step"] if has_val else None,
        val_bits=h["val_bound_bits"] if has_val else None, floor_bits=bound.floor_bits,
        null_bits=None if nats is None else nats / evaluate.LN2, null_name=name,
    )  # fmt: skip


def _reverse_trajectory(run, model, examples, path: Path) -> None:
    t = run.settings.training
    data = run.train_rows.with_file(run.settings.data)
    n = examples.walked(data) if hasattr(examples, "walked") else t.num_examples
    times, states = sample.trajectory(model, n, seed=t.seed)
    examples.reverse_trajectory(path, times, states, data)


def _kl_per_step(run, model, bound: evaluate.Bound, path: Path) -> None:
    low = bound.floor_bits
    population = None if low is None else model.kind.population(run.settings.data, run.train_rows)
    kl, least = evaluate.kl_per_step(model, run.train_rows, population)
    # the same draws for both; their chance is taken out by what the sum is known to be, 0 for a single row
    if least is not None and least.sum() > 0:
        kl, least = kl * (low / least.sum()), least * (low / least.sum())
    curves.kl_per_step(path, np.arange(1, len(kl) + 1), kl, floor_kl_bits=least, T=len(kl))


def of_examples(kind: str):
    """The module that draws examples of a kind of data, None where there is none.

    It has samples, sample_evolution, reverse_trajectory and shown, as bits_pictures has them. It may have
        walked(settings) : how many samples reverse_trajectory gets, training.num_examples without it
        more(run, model, rows) : yields the name of a further picture of a run and what draws it to a path, for each;
            what takes time belongs into that function. rows : samples, (n, D)
    """
    name = f"bdiff_np.show.{kind}_pictures"
    return import_module(name) if find_spec(name) else None
