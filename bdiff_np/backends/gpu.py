"""Whether there is an NVIDIA GPU that the GPU back ends can use; if not, why not and what fixes it. Standard library
only."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bdiff_np.backends import Backend
from bdiff_np.backends.install import current_folder, pip
from bdiff_np.backends.tryout import try_out
from bdiff_np.errors import Unavailable

OLDEST = 12000  # the driver's CUDA version, 1000 times the major one, from which on there are wheels of CuPy for it
# compute capabilities: what a waiting block needs (device.cuh), and what CUDA 13 still compiles for
OLDEST_CARD, OLDEST_OF_13 = 70, 75
MAJOR, MINOR = 75, 76  # the driver's numbers for the two halves of a card's compute capability


class Driver(NamedTuple):
    """What the driver says of itself.

    version : 13000 for CUDA 13.0, None where there is no driver. devices : names of the GPUs. fault : why there are
        none
    capability : compute capability of the first GPU, 90 for 9.0
    """

    version: int | None
    devices: tuple[str, ...]
    fault: str
    capability: int = 90


@lru_cache(1)
def driver() -> Driver:
    """Asks the driver's own library, which needs no CUDA and no package."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Driver(None, (), "there is no NVIDIA driver on this machine")
    known, count, major, minor = (ctypes.c_int() for _ in range(4))
    cuda.cuDriverGetVersion(ctypes.byref(known))
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if code or not count.value:
        return Driver(known.value, (), f"the NVIDIA driver finds no GPU{_why(cuda, code)}")
    cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, 0)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, 0)
    names = []
    for k in range(count.value):
        name = ctypes.create_string_buffer(256)
        cuda.cuDeviceGetName(name, 256, k)
        names.append(name.value.decode(errors="replace"))
    return Driver(known.value, tuple(names), "", 10 * major.value + minor.value)


def _why(cuda, code: int) -> str:
    """What is known of the reason: the driver's name for its error, and whether the environment hides cards."""
    name, hidden = ctypes.c_char_p(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if code:
        cuda.cuGetErrorName(code, ctypes.byref(name))
    said = [name.value.decode()] if name.value else []
    said += [] if hidden is None else [f"CUDA_VISIBLE_DEVICES is {hidden!r}"]
    return f" ({', '.join(said)})" if said else ""


def extra() -> str:
    """The extra of this package that fits the driver and the card."""
    card = driver()
    older = card.version is not None and card.version < 13000 or card.devices and card.capability < OLDEST_OF_13
    return "cuda12" if older else "cuda13"


def install() -> str:
    """The command that installs what the driver and the card ask for: of a clone, from there."""
    root = Path(__file__).resolve().parents[2]
    if not (root / "setup.py").is_file():
        return f'{pip()} install "bdiff_np[{extra()}]"'
    return f'{pip()} install -e "{"." if root == current_folder() else root}[{extra()}]"'


class GPUBackend(Backend):
    """A back end on an NVIDIA GPU.

    module : what it is made of, as it is imported. wheels : packages of PyPI that hold it, no two of which may be
        installed
    """

    module: str
    wheels: tuple[str, ...]

    def load(self) -> Any:
        ops = super().load()
        try_out(ops, self.reinstall)
        return ops

    def reinstall(self) -> str:
        """The command that mends an installation, whatever is wrong with it: wheels that are there, of other CUDA
        versions too, go first."""
        wheels = [wheel for wheel in self.wheels if _installed(wheel)]
        return (f"{pip()} uninstall -y {' '.join(wheels)} && " if wheels else "") + install()

    def fault(self) -> Unavailable | None:
        """Why it cannot run here, or None if it can, as far as can be told without starting it."""
        name, card = self.name, driver()
        if find_spec(self.module) is None:
            fix = (
                install()
                if card.devices
                else f"on a machine with an NVIDIA GPU: {install()}; here, take the back end numba"
            )
            return Unavailable(name, f"{name} is not installed" + ("" if card.devices else f", and {card.fault}"), fix)
        if not card.devices:
            if "CUDA_VISIBLE_DEVICES" in os.environ and card.version is not None:
                return Unavailable(name, card.fault, "unset CUDA_VISIBLE_DEVICES, or take the back end numba")
            fix = (
                "take the back end numba, or, if there is a GPU, install NVIDIA's driver for CUDA 12 or newer "
                "(start a container with --gpus all)"
            )
            return Unavailable(name, card.fault, fix)
        if card.version is not None and card.version < OLDEST:
            known = f"{card.version // 1000}.{card.version % 1000 // 10}"
            return Unavailable(name, f"the driver is for CUDA {known}", "update it to one for CUDA 12 or newer")
        if card.capability < OLDEST_CARD:
            has, needs = (f"{number // 10}.{number % 10}" for number in (card.capability, OLDEST_CARD))
            return Unavailable(
                name,
                f"{card.devices[0]} has compute capability {has}, and {needs} is the least",
                "take the back end numba",
            )
        return None

    def require(self) -> None:
        """Raises Unavailable unless it can run here."""
        fault = self.fault()
        if fault is not None:
            raise fault
        try:
            import_module(self.module)
        except Exception as problem:  # of any kind: it comes from a library that does not fit the machine
            raise Unavailable(self.name, f"{self.name} cannot be imported ({problem})", self.reinstall()) from problem


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
