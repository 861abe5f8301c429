"""Is a network's backward the derivative of its forward? Checked in float64, one parameter at a time, in random
directions. And does a network of the user's own run at all? Rehearsed before anything rests on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdiff_np.errors import InputError
from bdiff_np.nets import Net
from bdiff_np.params import Params

STEP = 1e-5  # of the central difference, in units of a parameter's own size
# relative; a central difference in float64 is good to about 1e-8, a wrong formula is off by more than 1e-3
TOLERANCE = 1e-5
DIRECTIONS = 3
REHEARSED = 3  # rows


class Check(NamedTuple):
    """One parameter: the analytic and the numeric derivative in the worst of DIRECTIONS random directions, and their
    relative difference."""

    name: str
    analytic: float
    numeric: float
    error: float

    @property
    def good(self) -> bool:
        return self.error < TOLERANCE


def check(model, *, rows: int = 16, seed: int = 0, loss: str = "kl", net: Net | None = None) -> list[Check]:
    """Every parameter of the network of a model of dtype float64, or of `net` in its place.

    loss : "kl", the training loss; "linear", a fixed random weighting of the outputs, which tests the network alone
    """
    ops, net, kernels, generator = model.ops, net or model.net, model.kernels(), np.random.default_rng(seed)
    params = Params(ops, net.shapes, np.float64).fill(net.init(seed))
    params.flat += 0.1 * generator.standard_normal(params.flat.shape)  # a last layer of zeros would hide all others
    t = np.linspace(1, model.chain.T, rows).round().astype(np.int64)
    x0, x_t = model.family.check_batch(model.chain, generator, rows, model.D)
    weight = generator.standard_normal((rows, model.family.outputs(model.D, model.config.model)))

    def value() -> tuple[float, np.ndarray, object]:
        out, tape = net.forward(ops, params, x_t, t)
        if loss == "linear":
            return float((out * weight).sum()), weight, tape
        kl, dout = kernels.kl_grad(out, x0, x_t, t)
        return float(kl.sum()), dout, tape

    _, dout, tape = value()
    grads = {name: np.array(array) for name, array in net.backward(ops, params, tape, dout).items()}
    floor = 1e-9 * max(1e-12, max(float(np.abs(g).max(initial=0.0)) for g in grads.values()))
    results = []
    for name, array in params.items():
        kept, worst = array.copy(), Check(name, 0.0, 0.0, -1.0)
        size = STEP * max(1e-3, float(np.sqrt(np.mean(kept**2))))
        for _ in range(DIRECTIONS):
            direction = generator.standard_normal(array.shape)
            array[...] = kept + size * direction
            above = value()[0]
            array[...] = kept - size * direction
            below = value()[0]
            array[...] = kept
            numeric, analytic = (above - below) / (2 * size), float((grads[name] * direction).sum())
            scale = max(abs(numeric), abs(analytic), 1e-3 * float(np.abs(grads[name]).sum()), floor)
            this = Check(name, analytic, numeric, abs(numeric - analytic) / scale)
            worst = this if not this.error <= worst.error else worst  # so that a nan is the worst of all
        results.append(worst)
    return results


def rehearse(model, kernels=None) -> None:
    """One forward of a network of the user's own on a few rows, and with `kernels`, those of training, one backward.
    Nothing is kept.

    Raises InputError where the network fails, returns what it should not, or writes to its inputs.
    """
    ops, net = model.ops, model.net.twin()
    x0, x_t = map(ops.asarray, model.family.check_batch(model.chain, np.random.default_rng(0), REHEARSED, model.D))
    t = ops.asarray(np.linspace(1, model.chain.T, REHEARSED).round().astype(np.int64))
    inputs = {"params": model.params.flat, "x_t": x_t, "t": t}
    before = {name: np.array(ops.to_host(array)) for name, array in inputs.items()}
    finite = np.isfinite(before["params"]).all()  # of weights that are not, nothing is asked

    def unchanged(method: str) -> None:
        for name, array in inputs.items():
            if not np.array_equal(ops.to_host(array), before[name], equal_nan=before[name].dtype.kind == "f"):
                raise InputError(f"{net.path}: {method} writes to its input `{name}`; it must work on a copy of it")

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        out, tape = net.forward(ops, model.params, x_t, t)
        unchanged("forward")
        if kernels is None:
            return
        if finite and not np.isfinite(ops.to_host(out)).all():
            raise InputError(f"{net.path}: forward returns values that are not finite for the first weights, of init")
        dout = kernels.kl_grad(out, x0, x_t, t, True)[1]
        inputs["dout"], before["dout"] = dout, np.array(ops.to_host(dout))
        grads = net.backward(ops, model.params, tape, dout)
        unchanged("backward")
        if finite and not np.isfinite(ops.to_host(grads.flat)).all():
            raise InputError(f"{net.path}: backward returns values that are not finite for the first weights, of init")
