"""The one exception that means: the input is at fault, and here is the fix; and numbers that are checked alike."""

from __future__ import annotations

import operator
import secrets
import sys
from typing import Any


class InputError(ValueError):
    """A fault in what the user gave: a file, an option, a checkpoint.

    The message is one clear sentence (one line per fault) that names the place, what is wrong and how to fix it. The
    command line prints it without a traceback and leaves with exit code 2; from Python it is an ordinary ValueError.
    """


class Unavailable(InputError):
    """A back end that cannot run here: the reason and the fix, each half a sentence."""

    def __init__(self, backend: str, reason: str, fix: str):
        super().__init__(f"--backend {backend}: {reason}; {fix}")
        self.backend, self.reason, self.fix = backend, reason, fix

    def __reduce__(self):  # from another process it comes back whole
        return type(self), (self.backend, self.reason, self.fix)


def short(text: Any, most: int = 160) -> str:
    """What another library says, or what stands in a file, in one line of a message."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


SEEDS = 2**63 - 1  # 0 .. SEEDS - 1; the words of a seed's successor are used too


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number from Python. Raises InputError for another, 3.0 and True among them."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InputError(f"{name} is {value!r}; give a whole number, at least {least}")
    return number


def seed_of(seed: Any) -> int:
    """A seed from Python; for None one is drawn, and said on stderr. Raises InputError for a number that is none."""
    if seed is None:
        seed = secrets.randbelow(2**32)
        print(f"seed {seed}", file=sys.stderr)
    if whole("seed", seed) >= SEEDS:
        raise InputError(f"seed is {seed}; give a whole number, at most {SEEDS - 1}")
    return int(seed)
