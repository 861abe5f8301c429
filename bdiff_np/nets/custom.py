"""A user's own network: the class ReverseModel of a reverse_model.py, fitted to what the training loop expects. See
docs/custom_net.md.

Its code runs within `_guarded`: whatever it raises becomes one sentence with the file, the line and the exception's own
words, what it prints goes to stderr, and NumPy's handling of overflow is afterwards as it was before.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bdiff_np import rng
from bdiff_np.errors import InputError, short
from bdiff_np.nets import Net
from bdiff_np.params import Params
from bdiff_np.rng import Key

FILE = "reverse_model.py"
WORDS = 500  # characters at most of what its exceptions say
METHODS = "init", "forward", "backward"


_numbers = itertools.count(1)  # of files executed


class NetFault(InputError):
    """A fault of a user's own network."""


class CustomNet(Net):
    """Wraps an object with `shapes`, `init(generator)`, `forward(ops, params, x_t, t)` and `backward(ops, params, tape,
    dout)`.

    It may take by name, when it is made: D, T, alpha_bar, and what the family keeps of the process, such as pi.
    Raises NetFault, naming the file, where the object does not keep to that.
    """

    path: Path
    on_host = True
    smaller = f"take a smaller network in {FILE}"

    def __init__(self, path: Path, task, state, dtype=np.float32):
        self.path, self.D, self.outputs, self.dtype = path, task.D, task.outputs, np.dtype(dtype)
        made = load_class(path)
        with _guarded(path):
            known = {"D": task.D, "T": int(task.chain.time[-1]), "alpha_bar": task.chain.alpha_bar, **state}
            wanted = inspect.signature(made).parameters
            # copies: what it writes to them must not change the process
            self.inner = made(**{name: np.copy(v) if np.ndim(v) else v for name, v in known.items() if name in wanted})
            has = {name: hasattr(self.inner, name) for name in ("shapes", *METHODS)}
        for name, there in has.items():
            if not there:
                raise NetFault(f"{path}: class ReverseModel has no `{name}`; docs/custom_net.md shows a whole one")
        with _guarded(path):
            shapes = self.inner.shapes
        self.shapes = _shapes(path, shapes)

    def init(self, seed: int) -> dict[str, np.ndarray]:
        with self._guarded("init"):
            arrays = self.inner.init(rng.generator(Key(seed, rng.INIT, 0)))
        arrays = self._checked("init", arrays)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise self._fault("init", f"returned a value that is not finite for parameter {name!r}")
        return arrays

    def forward(self, ops, params, x_t, t, key=None):
        with self._guarded("forward"):
            answer = self.inner.forward(ops, params, x_t, t)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise self._fault("forward", f"returned {_kind(answer)}, expected a pair: output, tape")
        out, tape = self._array("forward", "an output", answer[0]), answer[1]
        expected = len(x_t), self.outputs
        if out.shape != expected:
            raise self._fault(
                "forward",
                f"returned an output of shape {out.shape}, expected {expected}: {self.outputs} for each row",
            )
        with np.errstate(over="ignore"):
            return out.astype(self.dtype, copy=False), tape

    def backward(self, ops, params, tape, dout) -> Params:
        with self._guarded("backward"):
            arrays = self.inner.backward(ops, params, tape, dout)
        with np.errstate(over="ignore"):
            return self.gradients(ops).fill(self._checked("backward", arrays))

    def twin(self) -> CustomNet:
        """The same network with an object of its own, as far as it can be copied, to be tried out: what it counts or
        keeps between calls stays as it was."""
        other = copy.copy(self)
        other._gradients = None
        with contextlib.suppress(Exception):
            other.inner = copy.deepcopy(self.inner)
        return other

    def _checked(self, method: str, arrays) -> dict[str, np.ndarray]:
        """What init or backward returned as arrays of the shapes that it must have."""
        if not isinstance(arrays, dict):
            raise self._fault(method, f"returned {_kind(arrays)}, expected a dict of arrays named as in `shapes`")
        for name in arrays:
            if name not in self.shapes:
                raise self._fault(method, f"returned {name!r}, which `shapes` does not have")
        found = {}
        for name, shape in self.shapes.items():
            if name not in arrays:
                raise self._fault(method, f"returned nothing for parameter {name!r}")
            found[name] = self._array(method, f"for parameter {name!r} what", arrays[name])
            if found[name].shape != shape:
                raise self._fault(
                    method, f"returned shape {found[name].shape} for parameter {name!r}, `shapes` says {shape}"
                )
        return found

    def _array(self, method: str, what: str, value) -> np.ndarray:
        with self._guarded(method):
            array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            what = f"{what} is" if what.endswith("what") else f"{what} that is"
            raise self._fault(method, f"returned {what} of the type {array.dtype} ({_kind(value)}), not real numbers")
        return array

    def _guarded(self, method: str):
        return _guarded(self.path, getattr(type(self.inner), method, None))

    def _fault(self, method: str, text: str) -> NetFault:
        return NetFault(f"{self.path}{_line_of(getattr(type(self.inner), method, None), self.path)}: {method} {text}")


def load_class(path: Path) -> type:
    """Executes the file and returns its class ReverseModel. Call it only with a path inside a folder that the user
    named."""
    # known by a name of its own, which dataclasses and typing look it up by
    module = ModuleType(f"_bdiff_np_reverse_model_{next(_numbers)}")
    module.__file__ = str(path)
    try:
        source = path.read_bytes()  # bytes: a coding line counts, as in any file of Python
    except OSError as fault:
        raise NetFault(f"{path}: cannot be read: {fault.strerror or fault}") from None
    with _guarded(path):
        # Not an import: its cache of compiled files would miss an edit within the same second, and litter the run
        # folder.
        sys.modules[module.__name__] = module
        exec(compile(source, str(path), "exec"), module.__dict__)
    network = getattr(module, "ReverseModel", None)
    if not inspect.isclass(network):
        raise NetFault(f"{path}: defines no class ReverseModel; docs/custom_net.md shows one")
    return network


@contextlib.contextmanager
def _guarded(path: Path, method: Any = None) -> Iterator[None]:
    """Around all that runs the user's code. method : the function called, whose line stands in for one that the
    exception does not have"""
    try:
        with contextlib.redirect_stdout(sys.stderr), np.errstate(), _same_folder():
            yield
    except (KeyboardInterrupt, NetFault):
        raise
    except BaseException as fault:  # sys.exit in the file, too
        raise NetFault(f"{path}{_line(fault, path) or _line_of(method, path)}: {_words(fault)}") from fault


@contextlib.contextmanager
def _same_folder() -> Iterator[None]:
    """Afterwards the current folder is what it was: paths of a run may be relative to it."""
    try:
        before = os.getcwd()
    except OSError:  # it is gone
        before = None
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.chdir(before)


def _words(fault: BaseException) -> str:
    """Type and message of an exception in one line."""
    try:
        text = short(fault.msg if isinstance(fault, SyntaxError) else fault, WORDS)
    except Exception:
        text = "its message cannot be made"
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def _kind(value) -> str:
    return type(value).__name__


def _line(fault: BaseException, path: Path) -> str:
    """:LINE of the last place in the file itself, or nothing."""
    lines, tb = [], fault.__traceback__
    while tb:
        if tb.tb_frame.f_code.co_filename == str(path):
            lines.append(tb.tb_lineno)
        tb = tb.tb_next
    if not lines and isinstance(fault, SyntaxError) and fault.filename in (None, str(path)):
        lines.append(fault.lineno or (0 if "unknown encoding" in str(fault.msg) else _line_of_bytes(path)))
    return f":{lines[-1]}" if lines and lines[-1] else ""


def _line_of_bytes(path: Path) -> int:
    """The line of the first bytes that are not UTF-8, in a file that does not say another coding; 0 where there is
    none."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as fault:
        return content.count(b"\n", 0, fault.start) + 1
    return content.count(b"\n", 0, content.index(b"\0")) + 1 if b"\0" in content else 0


def _line_of(method, path: Path) -> str:
    """:LINE where a method of the file begins, or nothing."""
    code = getattr(method, "__code__", None)
    return f":{code.co_firstlineno}" if code is not None and code.co_filename == str(path) else ""


def _shapes(path: Path, shapes) -> dict[str, tuple[int, ...]]:
    """`shapes` of the object as a dict of tuples."""
    if not isinstance(shapes, dict):
        raise NetFault(f"{path}: `shapes` is {_kind(shapes)}, expected a dict: parameter name -> shape")
    if not shapes:
        raise NetFault(f"{path}: `shapes` is empty; a network to train has one parameter at least")
    found = {}
    for name, shape in shapes.items():
        if not (isinstance(name, str) and re.fullmatch(r"[^\s/][^\s]*", name)):
            raise NetFault(f"{path}: `shapes` has the name {name!r}; take a text without blanks for each parameter")
        whole = isinstance(shape, tuple | list) and all(
            isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1 for n in shape
        )
        if not whole:
            raise NetFault(f"{path}: `shapes` says {shape!r} for {name!r}, expected a tuple of whole numbers from 1 on")
        found[name] = tuple(int(n) for n in shape)
    return found
