"""Which pictures a run gets: curves for every family, and pictures of examples where its kind of data has a
show/<kind>_pictures.py."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import numpy as np

from bdiff_np import evaluate, sample
from bdiff_np.show import curves


def draw(run, model, bound: evaluate.Bound, rows: np.ndarray) -> None:
    """Draws all pictures of a run.Run into its results folder. bound : of the training rows. rows : samples, (n, D)"""
    h, results, settings, low = run.history.columns, run.results, run.settings, bound.floor_bits
    has_val, data = run.val_rows is not None, settings.data
    examples = of_examples(model.family.data)
    name, nats = model.family.baseline(run.train_rows) or ("", None)
    if run.epoch:
        curves.loss_curve(
            results / "loss_curve.png", h["step"], h["loss_bits"], val_step=h["step"] if has_val else None,
            val_bits=h["val_bound_bits"] if has_val else None, floor_bits=low,
            null_bits=None if nats is None else nats / evaluate.LN2, null_name=name,
        )  # fmt: skip
    seen, frames = run.history.looked_at()
    if frames:
        if run.history.census and settings.training.num_val_samples:
            curves.validation(results / "validation.png", seen["epoch"], run.history.census.stack(seen))
        if examples:
            file = results / "sample_evolution_throughout_training.gif"
            examples.sample_evolution(file, seen["epoch"], np.stack(frames), data)
    if examples:
        times, states = sample.trajectory(model, settings.training.num_examples, seed=settings.training.seed)
        examples.reverse_trajectory(results / "reverse_trajectory.gif", times, states, data)
        examples.samples(results / "samples.png", rows[: examples.shown(data)], data)
    population = None if low is None else model.kind.population(data, run.train_rows)
    kl, least = evaluate.kl_per_step(model, run.train_rows, population)
    if least is not None:  # the same draws for both; their chance is taken out by what the sum is known to be
        kl, least = kl * (low / least.sum()), least * (low / least.sum())
    curves.kl_per_step(results / "kl_per_step.png", np.arange(1, len(kl) + 1), kl, floor_kl_bits=least, T=len(kl))


def of_examples(kind: str):
    """The module that draws examples of a kind of data: samples, sample_evolution, reverse_trajectory and shown; None
    where there is none."""
    name = f"bdiff_np.show.{kind}_pictures"
    return import_module(name) if find_spec(name) else None
