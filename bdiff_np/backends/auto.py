"""Which back end `--backend auto` takes: the fastest here for the work at hand, the wait for a compiler included.

The rule, from the measurements in benchmarks/RESULTS.md: estimate what the work takes on NumPy. The compiled back end saves the better part of
that and costs its set-up, about a second where its kernels have been compiled before and up to half a minute where not. It is taken if it saves
more than it costs. A network that the compiled back end cannot fuse stays on NumPy. Where CuPy finds a GPU, that is a third candidate; what it saves
and what its start takes has not been measured on one yet.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from bdiff_np.backends import gpu
from bdiff_np.errors import InputError, Unavailable
from bdiff_np.model import load_ops

AUTO = "auto"  # the name with which a user asks for it

# Seconds on NumPy, one core of a 2.1 GHz Xeon: of a training step whatever its size, of a row for each parameter, of a row for each unit.
STEP, PARAMETER, UNIT = 3e-4, 2e-11, 8e-9
BIT = 3e-7  # of a bit of an evaluation, for its noise and its KL, on an AMD EPYC (4 million steps of 20 bits: 28 s, 4 of them in the network)
TRAINING = 2.5  # a training row, forward and backward, in forward rows
LOAD = 1.0  # seconds, of kernels that have been compiled before
GPU_SAVED, GPU_START = 0.9, 6.0  # of NumPy's time, and seconds until CuPy and the kernels are loaded; guesses, not yet measured on a GPU


class Work(NamedTuple):
    """What is to be done, by the compiled function that would do it."""

    function: str
    saved: float  # of NumPy's time, at least
    compile: float  # seconds


TRAIN = Work("step_numba.take", 0.6, 22.0)  # with the sampler, which a training uses too
SAMPLE = Work("chain_numba.walk_back", 0.8, 7.0)
EVALUATE = Work("numba.values", 0.3, 6.0)


class Choice(NamedTuple):
    """A back end and, in words, why."""

    backend: str
    reason: str


def for_training(training) -> Choice:
    """For all steps of a train.Training."""
    rows = training.total_steps * training.batch_rows * training.repeats
    return _choose(training.model, training.total_steps * STEP + TRAINING * _seconds(training.model, rows), TRAIN)


def for_sampling(model, rows: int, steps: int) -> Choice:
    """For walking rows back through so many steps of the chain."""
    return _choose(model, _seconds(model, rows * steps), SAMPLE)


def for_evaluation(model, evaluations: int) -> Choice:
    """For so many values of the KL."""
    return _choose(model, _seconds(model, evaluations) + BIT * model.D * evaluations, EVALUATE)


def _seconds(model, rows: float) -> float:
    """For rows through the network once, on NumPy."""
    units = sum(shape[-1] for name, shape in model.net.shapes.items() if name.endswith("/W"))
    return rows * (PARAMETER * model.params.flat.size + UNIT * units)


def _choose(model, seconds: float, work: Work) -> Choice:
    if getattr(model.net, "dense", None) is None:
        return Choice("numpy", "this network has no compiled form")
    choice, expected = _on_host(model, seconds, work)
    missing = gpu.fault("cupy")
    if missing is not None:
        return choice._replace(reason=f"{choice.reason}; {missing.reason if gpu.driver().devices else 'no GPU'}")
    there = (1 - GPU_SAVED) * seconds + GPU_START
    if there < expected:
        try:
            load_ops("cupy")
        except Unavailable as fault:
            return choice._replace(reason=f"{choice.reason}; {fault}")
        return Choice("cupy", f"about {seconds:.0f} s on NumPy, {there:.0f} s on the GPU, its start included")
    return choice._replace(reason=f"{choice.reason}, {GPU_START:.0f} s to start the GPU")


def _on_host(model, seconds: float, work: Work) -> tuple[Choice, float]:
    """NumPy or Numba, and about how many seconds it will take."""
    if find_spec("numba") is None:
        return Choice("numpy", "Numba is not installed"), seconds
    from bdiff_np.kernels.shared.compiled import is_compiled

    there = is_compiled(f"{model.config.model.family}_{work.function}")
    cost = LOAD if there else work.compile
    other = f"{(1 - work.saved) * seconds:.0f} s on Numba and {cost:.0f} s, "
    other += "to load its kernels" if there else "once, to compile its kernels"
    reason = f"about {seconds:.0f} s on NumPy, {other}"
    if work.saved * seconds <= cost:
        return Choice("numpy", reason), seconds
    try:
        import_module("bdiff_np.backends.numba_ops")
        from bdiff_np.kernels.shared.blas_numba import sgemm
    except InputError as fault:
        return Choice("numpy", str(fault)), seconds
    if sgemm() is None:
        return Choice("numpy", "NumPy's BLAS does not show its sgemm to compiled code"), seconds
    return Choice("numba", reason), (1 - work.saved) * seconds + cost
