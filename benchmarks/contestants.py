"""What the speed benchmark compares: one training step as plain arrays for the peers, this project's own back ends, and
the processes all live in.

A peer (peer_torch.py, peer_jax.py) is given a Problem and nothing of bdiff_np. Every contestant is a class that has

    __init__(problem, mode, threads)
    loss_and_grads(x0, x_t, t)   of the starting weights: loss in nats per row, and by name the gradient of the scaled
        loss, before clipping
    run(steps)                   that many training steps; returns when they are done
    weights()                    the averaged weights by name
    sample(n, steps)             n rows by that many steps of the reverse chain, (n, D), as the data is
"""

from __future__ import annotations

import importlib
import os
import re
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from families import FAMILIES

# Notation: B rows of a batch, N rows of data, D elements of a row, H hidden units, T steps of the chain, K of them that
# a sampler takes.

SEED, ROWS = 1, 4096  # of the data
SHORT = 100  # steps of the short sampler


@dataclass(frozen=True)
class Size:
    """A network and a batch, written 20-50-50-20@64; 512x3 stands for 512-512-512."""

    D: int
    hidden: tuple[int, ...]
    batch: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Raises ValueError, which says what a size looks like."""
        if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*(x[1-9]\d*)?)+-[1-9]\d*@[1-9]\d*", text):
            raise ValueError(
                f"{text!r} is not a size; write values-widths-values@batch, such as 20-50-50-20@64 or 784-512x3-784@256"
            )
        layers, batch = text.split("@")
        first, *inner, last = layers.split("-")
        if first != last:
            raise ValueError(
                f"{text!r} is not a size: as many values leave a network as enter it, not {last} and {first}"
            )
        widths = (part.split("x") for part in inner)
        return cls(
            int(first), tuple(int(width) for width, *times in widths for _ in range(int(*times or (1,)))), int(batch)
        )

    def __str__(self) -> str:
        repeated = len(self.hidden) > 2 and len(set(self.hidden)) == 1 and self.D > 99
        inner = f"{self.hidden[0]}x{len(self.hidden)}" if repeated else "-".join(map(str, self.hidden))
        return f"{self.D}-{inner}-{self.D}@{self.batch}"


class Optimizer(NamedTuple):
    """AdamW with clipping by the global norm, linear warm-up and half a cosine, and a running average of the
    weights."""

    lr: float
    warmup_steps: int
    total_steps: int
    weight_decay: float
    clip: float
    ema: float
    beta1: float
    beta2: float
    eps: float


@dataclass(frozen=True)
class Problem:
    """One size of a family as arrays.

    family : of families.py. weights : name -> float32, in the network's names and order
    decayed : name -> whether weight decay applies. rows : (N, D), the data
    chains : K -> the family's tables, for all T steps and for the short sampler
    scale : from the sum of KLs over a batch to the loss in nats per element
    """

    family: Any
    size: Size
    T: int
    weights: dict[str, np.ndarray]
    decayed: dict[str, bool]
    rows: np.ndarray
    chains: dict[int, Any]
    scale: float
    optimizer: Optimizer

    @property
    def chain(self) -> Any:
        return self.chains[self.T]

    @property
    def flop(self) -> int:
        """Floating-point operations of one step, the matrix products alone: forward, weights' gradients, and the
        inputs' where they are needed."""
        first, *_ = (name for name in self.weights if name.endswith("/W"))
        inputs = {name: name.endswith("/W") and name != first for name in self.weights}
        return sum(2 * self.size.batch * w.size * (2 + inputs[name]) for name, w in self.weights.items() if w.ndim > 1)

    def nats(self, loss: float, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> float:
        """The bound's estimate in nats per row, of what peers sum up over a batch."""
        return self.T / len(x0) * (loss + self.family.rest(self.chain, x0, x_t, t))


# Where the problem comes from -----------------------------------------------------------------------------------------


def make_training(size: Size, backend: str, dtype=np.float32, family: str = "bernoulli", **model):
    """The project's own Training of this size, all settings but sizes and those of `model` at their defaults, from the
    weights that all contestants start with."""
    from bdiff_np import config
    from bdiff_np.model import Model, family_of
    from bdiff_np.train import Training

    sections = {
        "model": {"family": family, "hidden": size.hidden, **model},
        "training": {"steps_per_epoch": 10_000, "seed": SEED, **FAMILIES[family].training},
        "data": {"batch_size": size.batch},
    }
    generator = np.random.default_rng(SEED)
    rows = FAMILIES[family].data(max(ROWS, size.batch), size.D, generator)
    settings = config.validate(sections)
    chain = family_of(settings).make_chain(settings.model, rows)
    training = Training(Model.build(settings, size.D, chain, backend=backend, dtype=dtype), rows)
    start = training.model.net.init(SEED)
    for name, value in start.items():
        if not value.any():  # a zero hides the gradients behind it
            start[name] = 0.1 * generator.standard_normal(value.shape)
    training.model.params.fill(start)
    training.optimizer.ema.fill(start)
    return training


def make_problem(size: Size, family: str = "bernoulli") -> Problem:
    """The same for peers."""
    from bdiff_np.optim import adamw as optim

    training = make_training(size, "numpy", family=family)
    model, s, kind = training.model, training.settings, FAMILIES[family]
    chains = {K: kind.steps(model, model.steps(K)) for K in (training.T, SHORT)}
    sizes = [value.size for value in model.params.values()]
    decayed = dict(
        zip(model.params, (bool(part[0]) for part in np.split(training.optimizer.decayed, np.cumsum(sizes[:-1]))))
    )
    return Problem(
        kind.of(training), size, training.T, {name: value.copy() for name, value in model.params.items()}, decayed,
        training.rows.all(), chains, training.optimizer.scale,
        Optimizer(s.lr, s.warmup_steps, training.total_steps, s.weight_decay, s.clip_thresh, s.ema, optim.BETA1,
        optim.BETA2, optim.EPS),
    )  # fmt: skip


# The project's own back ends ------------------------------------------------------------------------------------------


class Ours:
    """mode : a back end's name"""

    def __init__(self, problem: Problem, mode: str, threads: int, dtype=np.float32):
        self.training = make_training(problem.size, mode, dtype, problem.family.name)
        self.start = self._copies(self.training.model.params)

    def loss_and_grads(self, x0: np.ndarray, x_t: np.ndarray, t: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        training, model = self.training, self.training.model
        x0, x_t, t = map(model.ops.asarray, (x0, x_t, t))
        now = self._copies(model.params)
        model.params.fill(self.start)
        logits, tape = model.net.forward(model.ops, model.params, x_t, t)
        kl, dlogits = training.kernels.kl_grad(logits, x0, x_t, t)
        grads = self._copies(model.net.backward(model.ops, model.params, tape, dlogits))
        model.params.fill(now)
        return training.T * float(model.ops.to_host(kl).mean()), {
            name: value * training.optimizer.scale for name, value in grads.items()
        }

    def _copies(self, params) -> dict[str, np.ndarray]:
        return {name: np.array(self.training.model.ops.to_host(value)) for name, value in params.items()}

    def run(self, steps: int) -> None:
        training = self.training
        with training.model.threads:
            for left in range(steps, 0, -training.most_at_once):
                training.advance(min(left, training.most_at_once))

    def weights(self) -> dict[str, np.ndarray]:
        return self._copies(self.training.optimizer.ema)

    def sample(self, n: int, steps: int) -> np.ndarray:
        return self.training.model.sample(n, seed=SEED, steps=steps)


class Sgemm:
    """The machine's own rate of float32 matrix products, by NumPy's BLAS: what a step's GFLOP/s are a share of. mode :
    threads, as text"""

    SIZES = (512, 1024, 2048)

    def __init__(self, problem: None, mode: str, threads: int):
        from threadpoolctl import threadpool_limits

        self.limit = threadpool_limits(int(mode), user_api="blas")
        self.pairs = [tuple(np.full((n, n), 0.5, np.float32) for _ in range(3)) for n in self.SIZES]

    def best(self, seconds: float) -> float:
        """Best GFLOP/s over a few sizes, each tried for `seconds`."""
        rates = []
        for n, (a, b, out) in zip(self.SIZES, self.pairs):
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                start = time.perf_counter()
                np.matmul(a, b, out=out)
                rates.append(2e-9 * n**3 / (time.perf_counter() - start))
        return max(rates)


# Processes ------------------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A contestant's name in the tables, its owner ("" for this project), where its class stands, and what it
    is made with."""

    name: str
    owner: str
    module: str
    cls: str
    mode: str
    threads: int


class Worker:
    """A contestant in a process of its own, where no other library's threads are."""

    def __init__(self, entry: Entry):
        self.entry = entry
        self.pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_keep_to, initargs=(entry.threads,)
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown()

    def build(self, problem: Problem | None) -> float:
        """Makes the contestant, in place of the one before. Returns the seconds of import, construction and, with a
        problem, its first step."""
        return self.pool.submit(_build, self.entry, problem).result()

    def call(self, method: str, *arguments: Any) -> tuple[float, Any]:
        """Seconds and result of one of the contestant's methods."""
        return self.pool.submit(_call, method, *arguments).result()

    def cpu(self) -> float:
        """Seconds of processor time that the contestant has used, all threads together."""
        return self.pool.submit(time.process_time).result()


def _keep_to(threads: int) -> None:
    """Before any library starts its threads. JAX has no other way to be told their number."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


_contestant: Any = None


def _build(entry: Entry, problem: Problem | None) -> float:
    global _contestant
    start = time.perf_counter()
    _contestant = getattr(importlib.import_module(entry.module), entry.cls)(problem, entry.mode, entry.threads)
    if problem is not None:
        _contestant.run(1)
    return time.perf_counter() - start


def _call(method: str, *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = getattr(_contestant, method)(*arguments)
    return time.perf_counter() - start, result
