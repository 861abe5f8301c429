"""Guests of the house: families, nets, back ends and kinds of data, each found by the name of its file and imported by
that name alone."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from bdiff_np.errors import InputError


def names(package: str, attribute: str, ending: str = "") -> list[str]:
    """The guests in bdiff_np/<package>, by name: every file <name><ending>.py that has the attribute. Imports those
    files."""
    return [name for name in _files(package, ending) if hasattr(_module(package, name + ending), attribute)]


def find(package: str, name: str, attribute: str, ending: str = "") -> Any:
    """The attribute of bdiff_np/<package>/<name><ending>.py. Raises InputError, with the names there are, where there
    is no such file."""
    if name in _files(package, ending) and hasattr(module := _module(package, name + ending), attribute):
        return getattr(module, attribute)
    raise InputError(
        f"there is no {name!r} in bdiff_np/{package}; there is: {', '.join(names(package, attribute, ending))}"
    )


def _files(package: str, ending: str) -> list[str]:
    modules = sorted(m.name for m in pkgutil.iter_modules(import_module(f"bdiff_np.{package}").__path__))
    return [name.removesuffix(ending) for name in modules if name.endswith(ending)]


def _module(package: str, name: str):
    return import_module(f"bdiff_np.{package}.{name}")
