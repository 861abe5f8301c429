"""Back ends, and the two contracts through which the rest of the program knows them.

A back end <name> is
    backends/<name>_backend.py    BACKEND, of a class derived from `Backend`: what is known before it is loaded
    backends/<name>_ops.py        a module with the operations of `Ops`, or whatever `Backend.load` gives
and is found by `--backend <name>` (a hyphen in the name is an underscore in the file's).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np

from bdiff_np import guests
from bdiff_np.backends.install import pip
from bdiff_np.errors import InputError, Unavailable


class Ops(Protocol):
    """The operations that networks and the optimiser are written in. They know nothing of any family.

    B rows of H units, arrays of one dtype, float32 or float64. A forward operation returns (result, tape); its backward
    takes that tape. Inputs are never written, but for `out=`, for gradients that go into an argument named d..., and
    for `adamw`, whose purpose it is. On a device operations are asynchronous: `to_host` waits for what it reads.
    Networks also use an array's own operators (+, -, *, slices, sum, T), where the back end's arrays have them.
    """

    name: str
    on_device: bool  # whether arrays lie elsewhere than in the host's memory

    # arrays
    def asarray(self, host, dtype=None) -> Any:
        """A host array, or one of the back end, as an array of the back end; not copied where it is one."""

    def to_host(self, array) -> np.ndarray:
        """The array on the host; waits for it."""

    def zeros(self, shape, dtype) -> Any: ...
    def empty(self, shape, dtype) -> Any: ...
    def where(self, mask, a, b) -> Any:
        """a where the mask is true, b elsewhere."""

    def wait(self) -> None:
        """Returns when all that was asked for is done."""

    # the machine
    def reserve(self, need: int, what: str, fix: str) -> None:
        """Raises InputError if `need` bytes are more than is free; `what` needs it, `fix` says what to change."""

    def threads(self, width: int) -> AbstractContextManager[None]:
        """A context in which the threads suit layers of this width."""

    def allow_tf32(self, allowed: bool) -> None:
        """Whether products may be rounded to a 10-bit mantissa."""

    def versions(self) -> dict[str, str]:
        """Library -> version, for `doctor`."""

    def check_net(self, net) -> None:
        """Raises InputError for a network that the back end cannot run."""

    # dense layers
    def matmul(self, a, b, out=None) -> Any:
        """a (B, K) @ b (K, H)."""

    def activate(self, z, bias, activation, film=None) -> tuple[Any, Any]:
        """act((z + bias) (1 + scale) + shift), (B, H), and the tape; film : (B, 2H), scale beside shift, or None."""

    def activate_backward(self, dy, tape, dbias) -> tuple[Any, Any]:
        """dz (B, H) and dfilm (B, 2H) or None; the bias's gradient goes into dbias (H,)."""

    def keep_mask(self, key, shape, rate: float, dtype) -> Any:
        """Dropout's factor (B, H): 0 with probability `rate`, else 1 / (1 - rate), from the words of a key."""

    # norm
    def layer_norm(self, x, gain, shift) -> tuple[Any, Any]:
        """gain unit + shift, unit being the rows of x (B, H) at mean 0 and variance 1; and the tape."""

    def layer_norm_backward(self, dy, tape, dgain, dshift) -> Any:
        """dx (B, H); gradients of gain and shift go into dgain and dshift (H,)."""

    # optimiser
    def norm(self, flat, halted=None) -> Any:
        """Euclidean length of a flat buffer; not finite where its square is beyond the buffer's dtype. halted : (1,)
        int32, set where it is not finite; then nan comes back."""

    def adamw(self, params, grads, m, v, ema, decayed, norm, *, clip, **numbers) -> None:
        """One AdamW step and the average of the weights, in place on flat buffers; nothing where `norm` is not finite.

        decayed : (P,) bool, which weights decay. clip : largest length of the scaled gradient. numbers :
        dense_codes.rates
        """


OPERATIONS = [name for name in vars(Ops) if not name.startswith("_")] + list(Ops.__annotations__)


class Work(NamedTuple):
    """Work for which a back end is to be chosen.

    kind : "training", "sampling" or "evaluation". seconds : that it takes on NumPy, about. family : its name
    dense : whether its network has dense layers alone
    """

    kind: str
    seconds: float
    family: str
    dense: bool


class Estimate(NamedTuple):
    """A back end, how many seconds the work takes there, the start included, and in words why it was chosen so far.

    meanwhile : the back end that works while a process beside it sets this one up (runfolder/set_up.py); empty where
        this one works from the first step
    """

    backend: str
    seconds: float
    reason: str
    meanwhile: str = ""


class Backend:
    """What is known of a back end before anything of it is loaded. Methods have the default that stands here.

    order : its place in lists. packages : what it is made of, as people call it -> the names under which pip may know
        it
    """

    name: str
    order: int = 100
    packages: Mapping[str, tuple[str, ...]] = {}

    def load(self) -> Any:
        """Its operations (`Ops`). Raises Unavailable, with the reason and what to do about it, where it cannot run."""
        file = f"bdiff_np.backends.{self.name.replace('-', '_')}_ops"
        if find_spec(file) is None:
            raise Unavailable(self.name, f"there is no {file}", "write it; backends.Ops says what it holds")
        return import_module(file)

    def fault(self) -> Unavailable | None:
        """Why it cannot run here, or None if it can, as far as can be told without starting it."""
        return None

    def reinstall(self) -> str:
        """What to do about an installation that is there and fails: the command that repairs it."""
        if not self.packages:  # nothing was installed: the fault is in its own file
            return f"fix bdiff_np/backends/{self.name.replace('-', '_')}_ops.py"
        return f"{pip()} install --force-reinstall {self.name}"

    def propose(self, work: Work, best: Estimate) -> Estimate:
        """For `--backend auto`: itself where it is faster than the best so far, else the best with a reason that says
        why not.

        Of a training it may say `meanwhile`: then a process of its own takes the first steps of a small training of
        the same kind on it, after which those of this process need no set-up.
        """
        return best


def names() -> list[str]:
    """The back ends of this version, by file name."""
    return [name.replace("_", "-") for name in guests.names("backends")]


def in_order() -> list[str]:
    """The same by their own order, those that cannot be imported last."""

    def order(name: str) -> int:
        try:
            return find(name).order
        except InputError:
            return 1000

    return sorted(names(), key=order)


def find(name: str) -> Backend:
    """What is known of a back end. Raises InputError for a name that this version has not."""
    if "_" in name or not guests.exists("backends", name.replace("-", "_")):
        raise InputError(f"back end {name!r} is not part of this version; there is: auto, {', '.join(names())}")
    return guests.find("backends", name.replace("-", "_"))


def load_ops(name: str) -> Any:
    """The operations of a back end. Raises InputError for a name that this version has not, Unavailable where it cannot
    run."""
    backend = find(name)
    ops = backend.load()
    lacking = [operation for operation in OPERATIONS if not hasattr(ops, operation)]
    if lacking:
        file = f"bdiff_np/backends/{name.replace('-', '_')}_ops.py"
        raise Unavailable(name, f"it lacks {', '.join(lacking)}", f"write them in {file}; Ops says what they do")
    return ops
