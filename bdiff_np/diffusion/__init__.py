"""Families of diffusion, and the contract through which the rest of the program knows them.

A family <name> is
    diffusion/<name>_family.py        FAMILY, an object of a class derived from `Family`; the mathematics beside it
    kernels/<name>/<name>_numpy.py    `Kernels` on NumPy, and <name>_<back end>.py for each back end that has its own
and is found by `model.family: <name>`. Of a family's mathematics the float64 functions are the definition; every kernel
is tested against them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from bdiff_np import rng, settings
from bdiff_np.errors import InputError
from bdiff_np.rng import Key


class Chain(Protocol):
    """The forward process q as tables over t = 0..T, entry 0 being the clean data."""

    @property
    def T(self) -> int:
        """Number of steps."""

    @property
    def time(self) -> np.ndarray:
        """(T + 1,) int64, what the network is told as t: 0..T but for a chain with steps left out."""

    @property
    def alpha_bar(self) -> np.ndarray:
        """(T + 1,) float64, the share of the signal that is left: falls from 1 to 0, or nearly so."""

    def every(self, K: int) -> Chain:
        """The same process seen at K of its T steps. Raises ValueError unless 1 <= K <= T."""


class Kernels:
    """The kernels of a family on one back end: class `Kernels` of kernels/<family>/<family>_<back end>.py, derived from
    this one.

    Made by Kernels(chain, dtype=..., **Family.kernel_options()). Arrays are the back end's: x0 (B, D) of the data's
    dtype, x_t (B, D) of Family.x_dtype, t (B,) int64, out (B, M) what the network puts out, M = Family.outputs.
    Random words belong to (key, first_row + row): see rng.py. The module has a function `read(chain, x_t, t, features,
    weight=None)` beside the class: Task.read says what it gives.
    """

    chain: Any
    law: Any = None  # what the fused paths of kernels/training read of the chain; None where they are not filled

    def q_sample(self, x0, t, key: Key, first_row: int = 0) -> Any:
        """x_t ~ q(x_t | x_0), (B, D)."""
        raise NotImplementedError

    def kl_grad(self, out, x0, x_t, t, value: bool = True) -> tuple[Any, Any]:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, (B,), None unless `value`; and its gradient by `out`,
        (B, M)."""
        raise NotImplementedError

    def p_sample(self, out, x_t, t, key: Key, first_row: int = 0) -> Any:
        """x_{t-1} ~ p(x_{t-1} | x_t), (B, D)."""
        raise NotImplementedError

    def prior(self, rows: int, D: int, key: Key, first_row: int = 0) -> Any:
        """x_T of so many rows, (rows, D)."""
        raise NotImplementedError


class Task(NamedTuple):
    """What a network is built for, and how it reads x_t.

    family : its name. D : elements of an example. inputs, outputs : how many numbers the network reads of an example,
        and how many it puts out
    chain : the forward process, whole
    """

    family: str
    D: int
    inputs: int
    outputs: int
    chain: Chain

    def read(self, ops, x_t, t, features, weight=None) -> tuple[Any, Any]:
        """What a network multiplies first: x_t as numbers, (B, inputs), and where `weight` (T + 1,) is given each a
        second time, times weight[t], (B, 2 inputs); and the rows t of `features` (T + 1, F), (B, F). Both of features'
        dtype."""
        return kernels(self.family, ops).read(self.chain, x_t, t, features, weight)


class BoundKind(NamedTuple):
    """A kind of bound. first : the first step t whose KL it takes, the rest being `exact_terms`; words : what it is"""

    first: int
    words: str


class Family:
    """What the program asks of a family. Methods without a body must be written; the others have the default that
    stands here.

    Arrays of examples are on the host: x0 (B, D), t (B,) of 1..T. Values are in nats.
    """

    name: str
    data: str  # kind of data that it takes: the name of a file in data/
    Settings: type[settings.Settings]  # its settings in the section `model`; they have T
    Training: type[settings.Settings] = settings.Settings  # its settings in the section `training`
    bounds: Mapping[str, BoundKind] = {"learned": BoundKind(1, "all steps learned")}  # by the name for `--bound`
    floor_words: str = "the least that any network can reach"  # what `floor` is, where it has a standard error
    x_dtype: np.dtype | None = None  # of x_t, where it is not the data's
    # a method (chain, settings, out, x_t, t) that gives the mean of x_{t-1} less x_t, (B, D) in the chain's units, for
    # pictures; None where that says nothing
    drift: Any = None
    noises_known: bool = False  # whether the sampler noises what is known of an example as the chain does the rest
    takes_missing: bool = False  # whether it can be trained on, and can evaluate, examples with missing values

    def inputs(self, D: int, settings) -> int:
        """How many numbers the network reads of an example of D elements. settings : section `model`"""
        return D

    def outputs(self, D: int, settings) -> int:
        """How many numbers the network puts out for an example of D elements. settings : section `model`"""
        return D

    def make_chain(self, settings, data) -> Chain:
        """The forward process. settings : section `model`. data : the training data (data.Data), from which a state
        such as pi may be taken."""
        raise NotImplementedError

    def to_data(self, chain, x_0: np.ndarray) -> np.ndarray:
        """What the reverse chain ends in, (B, D) of x_dtype, as examples in the data's units and dtype."""
        return x_0

    def from_data(self, chain, x0: np.ndarray) -> np.ndarray:
        """Examples, or what is known of some, as the chain has them: the inverse of `to_data`."""
        return x0

    def process(self, chain) -> str:
        """What a bound must not be read without, beside T, as a line prints it: "beta_1 = 1e-05"; empty for nothing."""
        return ""

    def state(self, chain) -> dict[str, np.ndarray]:
        """What a checkpoint must keep of the process beside the configuration, by name; names may not hold a "/"."""
        return {}

    def restore(self, settings, state: Mapping[str, np.ndarray]) -> Chain:
        """The process of a checkpoint, from what `state` gave. Raises KeyError where something is missing."""
        raise NotImplementedError

    def misfit(self, chain, D: int) -> str | None:
        """Why a process that `restore` gave is none of examples of D elements, in half a sentence; None where it is."""
        return None

    def kernel_options(self, settings, training=None) -> dict[str, Any]:
        """Keywords for `Kernels`. settings : section `model`. training : section `training` when the gradient is to be
        followed, else None"""
        return {}

    def all_steps(self, settings) -> str | None:
        """Why a model with these settings can leave out no steps, in a few words; None where it can."""
        return None

    # The definition
    # ------------------------------------------------------------------------------------------------------------------

    def noise(self, key: Key, rows: int, D: int, first_row: int = 0) -> np.ndarray:
        """What `q_sample` takes, (rows, D): the noise of rows first_row, first_row + 1, ... of a key."""
        return rng.draws(key, rows, D, first_row)

    def q_sample(self, chain, x0: np.ndarray, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """x_t ~ q(x_t | x_0), (B, D), from `noise` (B, D)."""
        raise NotImplementedError

    def exact_terms(self, chain, x0: np.ndarray, kind: str = "learned") -> np.ndarray:
        """The part of the bound on -log p(x_0) that needs no network, (B,)."""
        raise NotImplementedError

    def null_bound(self, chain, x0: np.ndarray) -> np.ndarray:
        """What a model that knows nothing but the process pays for x_0, (B,)."""
        raise NotImplementedError

    def check_batch(self, chain, generator: np.random.Generator, rows: int, D: int) -> tuple[np.ndarray, np.ndarray]:
        """x_0 and x_t (rows, D) at which check-net differentiates: any pair that can occur."""
        raise NotImplementedError

    # What a user reads
    # ------------------------------------------------------------------------------------------------------------------

    def baseline(self, data) -> tuple[str, float] | None:
        """A level for the loss curve, its name and nats per example: what a simple model of the data pays."""
        return None

    def floor(self, chain, population: np.ndarray, kind: str = "learned", seed: int = 0) -> tuple[float, float] | None:
        """The lowest bound that any network can reach, and its standard error, where the law of the data is uniform
        over `population` (N, D)."""
        return None

    def floor_per_step(
        self,
        chain,
        settings,
        population: np.ndarray,
        out: Callable[[np.ndarray, np.ndarray], np.ndarray],
        evaluations: int,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean KL of each step, (T,), of the network and of the best there can be, from the same draws. out(x_t, t) :
        the network's output, (B, M)"""
        return None


# Which kernels run on a back end
# ----------------------------------------------------------------------------------------------------------


def has_kernels(family: str, backend: str) -> bool:
    """Whether a family has kernels of its own for a back end."""
    try:
        return importlib.util.find_spec(_kernels_file(family, backend)) is not None
    except ModuleNotFoundError:  # not even a folder
        return False


def _kernels_file(family: str, backend: str) -> str:
    return f"bdiff_np.kernels.{family}.{family}_{backend.replace('-', '_')}"


@lru_cache
def kernels(family: str, ops):
    """The module of a family's kernels for a back end: `Kernels` and `read`.

    Where the back end has none, NumPy's run in their place, which stderr says once. The random words are the same, so
    the results are too. Raises InputError for a family without any, and for a file that cannot be imported or does not
    hold what `Kernels` asks for.
    """
    if has_kernels(family, ops.name):
        return _load(family, ops.name)
    if not has_kernels(family, "numpy"):
        raise InputError(
            f"the family {family} has no kernels: write kernels/{family}/{family}_numpy.py and __init__.py"
        )
    print(
        f"back end {ops.name} has no kernels for {family}: those of NumPy run in their place, which takes longer",
        file=sys.stderr,
    )
    module = _load(family, "numpy")
    return HostKernels(module, ops) if ops.on_device else module


def _load(family: str, backend: str):
    name = _kernels_file(family, backend)
    file = name.removeprefix("bdiff_np.").replace(".", "/") + ".py"
    try:
        module = importlib.import_module(name)
    except InputError:
        raise
    except Exception as fault:  # of any kind: it is the family's own
        raise InputError(f"{file}: cannot be imported: {type(fault).__name__}: {fault}") from fault
    own = vars(module).get("Kernels")
    if not (isinstance(own, type) and issubclass(own, Kernels) and callable(vars(module).get("read"))):
        raise InputError(f"{file}: needs a class Kernels derived from bdiff_np.diffusion.Kernels, and a function read")
    return module


class HostKernels:
    """A module of NumPy kernels beside a device: arrays go to the host, results come back."""

    def __init__(self, module, ops):
        self._module, self._ops = module, ops

    def read(self, *arguments):
        return self._moved(self._module.read)(*arguments)

    def Kernels(self, *arguments, **options):
        """As the module's own class."""
        return _Moved(self._module.Kernels(*arguments, **options), self._moved)

    def _moved(self, method):
        def call(*arguments, **options):
            here = [
                self._ops.to_host(a) if hasattr(a, "shape") and not isinstance(a, np.ndarray) else a for a in arguments
            ]
            result = method(*here, **options)
            if isinstance(result, tuple):
                return tuple(None if array is None else self._ops.asarray(array) for array in result)
            return self._ops.asarray(result)

        return call


class _Moved(Kernels):
    """`Kernels` whose methods move their arrays."""

    def __init__(self, kernels, moved):
        self.chain = kernels.chain
        self.q_sample, self.kl_grad = moved(kernels.q_sample), moved(kernels.kl_grad)
        self.p_sample, self.prior = moved(kernels.p_sample), moved(kernels.prior)
