"""A user's own network: the class ReverseModel of a reverse_model.py, fitted to what the training loop expects. See
docs/custom_net.md."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

import numpy as np

from bdiff_np import rng
from bdiff_np.errors import InputError
from bdiff_np.nets import Net
from bdiff_np.params import Params
from bdiff_np.rng import Key

FILE = "reverse_model.py"


class CustomNet(Net):
    """Wraps an object with `shapes`, `init(generator)`, `forward(ops, params, x_t, t)` and `backward(ops, params, tape,
    dout)`.

    It may take by name, when it is made: D, T, alpha_bar, and what the family keeps of the process, such as pi.
    Raises InputError, naming the file, where the object does not keep to that.
    """

    on_host = True
    smaller = f"take a smaller network in {FILE}"

    def __init__(self, path: Path, task, state, dtype=np.float32):
        self.path, self.D, self.outputs, self.dtype = path, task.D, task.outputs, np.dtype(dtype)
        made = load_class(path)
        try:
            known = {"D": task.D, "T": int(task.chain.time[-1]), "alpha_bar": task.chain.alpha_bar, **state}
            wanted = inspect.signature(made).parameters
            self.inner = made(**{name: value for name, value in known.items() if name in wanted})
        except Exception as fault:
            raise InputError(f"{path}{_line(fault, path)}: {type(fault).__name__}: {fault}") from fault
        for name in ("shapes", "init", "forward", "backward"):
            if not hasattr(self.inner, name):
                raise InputError(f"{path}: class ReverseModel has no `{name}`; docs/custom_net.md shows a whole one")
        if not isinstance(self.inner.shapes, dict):
            raise InputError(
                f"{path}: `shapes` is {type(self.inner.shapes).__name__}, expected a dict: parameter name -> shape"
            )
        self.shapes = {name: tuple(shape) for name, shape in self.inner.shapes.items()}

    def init(self, seed: int) -> dict[str, np.ndarray]:
        arrays = self.inner.init(np.random.Generator(rng.philox(Key(seed, rng.INIT, 0))))
        self._check("init", arrays)
        return arrays

    def forward(self, ops, params, x_t, t, key=None):
        answer = self.inner.forward(ops, params, x_t, t)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise InputError(f"{self.path}: forward returned {type(answer).__name__}, expected a pair: output, tape")
        out, tape = answer
        expected = len(x_t), self.outputs
        if np.shape(out) != expected:
            raise InputError(
                f"{self.path}: forward returned an output of shape {np.shape(out)}, expected {expected}: "
                f"{self.outputs} for each row"
            )
        return out.astype(self.dtype, copy=False), tape

    def backward(self, ops, params, tape, dout) -> Params:
        arrays = self.inner.backward(ops, params, tape, dout)
        self._check("backward", arrays)
        return self.gradients(ops).fill(arrays)

    def _check(self, method: str, arrays) -> None:
        if not isinstance(arrays, dict):
            raise InputError(
                f"{self.path}: {method} returned {type(arrays).__name__}, expected a dict of arrays named as in "
                "`shapes`"
            )
        for name, shape in self.shapes.items():
            if name not in arrays:
                raise InputError(f"{self.path}: {method} returned nothing for parameter {name!r}")
            if np.shape(arrays[name]) != shape:
                raise InputError(
                    f"{self.path}: {method} returned shape {np.shape(arrays[name])} for parameter {name!r}, `shapes` "
                    f"says {shape}"
                )
        for name in arrays:
            if name not in self.shapes:
                raise InputError(f"{self.path}: {method} returned {name!r}, which `shapes` does not have")


def load_class(path: Path) -> type:
    """Executes the file and returns its class ReverseModel. Call it only with a path inside a folder that the user
    named."""
    module = ModuleType("reverse_model")
    module.__file__ = str(path)
    try:
        # Not an import: its cache of compiled files would miss an edit within the same second, and litter the run
        # folder.
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except Exception as fault:
        raise InputError(f"{path}{_line(fault, path)}: {type(fault).__name__}: {fault}") from fault
    network = getattr(module, "ReverseModel", None)
    if not inspect.isclass(network):
        raise InputError(f"{path}: defines no class ReverseModel; docs/custom_net.md shows one")
    return network


def _line(fault: BaseException, path: Path) -> str:
    """:LINE of the last place in the file itself, or nothing."""
    if isinstance(fault, SyntaxError) and fault.lineno:
        return f":{fault.lineno}"
    lines, tb = [], fault.__traceback__
    while tb:
        if tb.tb_frame.f_code.co_filename == str(path):
            lines.append(tb.tb_lineno)
        tb = tb.tb_next
    return f":{lines[-1]}" if lines else ""
