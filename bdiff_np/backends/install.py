"""How something is installed into the Python that runs. Standard library only."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def pip() -> str:
    """How pip is called for the Python that runs: by its path where another environment is active, or none."""
    if os.environ.get("VIRTUAL_ENV") == sys.prefix:
        return "pip"
    own, current = Path(sys.executable), current_folder()
    if current is not None and own.is_relative_to(current):
        own = own.relative_to(current)
    return f"{shlex.quote(str(own))} -m pip"


def current_folder() -> Path | None:
    """None where it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
