"""Guests of the house: families, nets, back ends and kinds of data, each found by the name of its file and imported by
that name alone."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from bdiff_np.errors import InputError


class Kind(NamedTuple):
    """What the guests of a package are. attribute : where a file has its guest. ending : of the file's name
    contract : class in the package that the guest is, or that its class is derived from"""

    attribute: str
    ending: str
    contract: str


KINDS = {
    "diffusion": Kind("FAMILY", "_family", "Family"),
    "nets": Kind("NET", "", "Net"),
    "backends": Kind("BACKEND", "_backend", "Backend"),
    "data": Kind("DATA", "", "Data"),
}


def names(package: str) -> list[str]:
    """The guests in bdiff_np/<package>, by name, and the files that cannot be imported. Imports all that can be."""
    return [name for name in _files(package) if _is_guest(package, name)]


def exists(package: str, name: str) -> bool:
    """Whether bdiff_np/<package> has a guest of that name, or a file of it that cannot be imported."""
    file = f"bdiff_np.{package}.{name}{KINDS[package].ending}"
    return name.isidentifier() and find_spec(file) is not None and _is_guest(package, name)


def find(package: str, name: str) -> Any:
    """The guest of bdiff_np/<package>/<name><ending>.py.

    Raises InputError, with the names there are, where there is no such file; and for one that cannot be imported, or
    whose guest is not what the contract asks for.
    """
    if not exists(package, name):
        raise InputError(f"there is no {name!r} in bdiff_np/{package}; there is: {', '.join(names(package))}")
    attribute, ending, contract = KINDS[package]
    file = f"bdiff_np/{package}/{name}{ending}.py"
    try:
        guest = getattr(_module(package, name), attribute)
    except Exception as fault:  # of any kind: it is the guest's own
        raise InputError(f"{file}: cannot be imported: {type(fault).__name__}: {fault}") from fault
    base = getattr(import_module(f"bdiff_np.{package}"), contract)
    if not (isinstance(guest, base) or isinstance(guest, type) and issubclass(guest, base)):
        raise InputError(f"{file}: {attribute} is no {contract}; derive its class from bdiff_np.{package}.{contract}")
    if isinstance(guest, base):
        lacking = [field for field in base.__annotations__ if not hasattr(guest, field)]
        if lacking:
            raise InputError(f"{file}: {attribute} lacks {', '.join(lacking)}; bdiff_np.{package}.{contract} says what")
        if guest.name.replace("-", "_") != name:
            raise InputError(f"{file}: the name of {attribute} is {guest.name!r}; give it that of the file, {name!r}")
    return guest


def commands(package: str) -> Iterator[Any]:
    """The commands (click) that guests of a package bring: COMMANDS of its files <name>_examples.py. In the place of
    those of a file that cannot be imported, one called <name>, which says why.

    The files are loaded without their package, which imports NumPy: `--help` does not wait for it.
    """
    for path in sorted((Path(__file__).parent / package).glob("*_examples.py")):
        try:
            spec = spec_from_file_location(f"bdiff_np.{package}.{path.stem}", path)
            assert spec is not None and spec.loader is not None
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            yield from module.COMMANDS
        except Exception as fault:  # of any kind: it is the guest's own
            yield _faulty(path.stem.removesuffix("_examples"), f"bdiff_np/{package}/{path.name}", fault)


def _faulty(name: str, file: str, fault: Exception) -> Any:
    """A command that does nothing but name the fault of the file that should have brought it."""
    import click

    sentence = f"{file}: cannot be imported: {type(fault).__name__}: {fault}"

    def callback(**_):
        raise InputError(sentence)

    return click.Command(name, callback=callback, help=sentence)


def _is_guest(package: str, name: str) -> bool:
    """Whether a file has a guest, or hides it by a fault."""
    try:
        return hasattr(_module(package, name), KINDS[package].attribute)
    except Exception:
        return True


def _files(package: str) -> list[str]:
    ending = KINDS[package].ending
    modules = sorted(m.name for m in pkgutil.iter_modules(import_module(f"bdiff_np.{package}").__path__))
    return [name.removesuffix(ending) for name in modules if name.endswith(ending)]


def _module(package: str, name: str) -> ModuleType:
    return import_module(f"bdiff_np.{package}.{name}{KINDS[package].ending}")
