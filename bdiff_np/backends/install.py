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
    own = Path(sys.executable)
    return f"{shlex.quote(str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own))} -m pip"
