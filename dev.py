#!/usr/bin/env python3
"""The set-up commands, for a machine that has nothing but Python 3.10 or newer.

    python3 dev.py train     train the heartbeat example: samples, the bound, pictures (about a minute)
    python3 dev.py test      run the tests, two at a time
    python3 dev.py ladder    run every check of the GPU kernels that needs no GPU (g++, and CUDA's compilers from PyPI,
                             about a gigabyte)

Each makes the virtual environment .venv at first use, installs the package into it in editable form, and runs the job
there. Further arguments go to the job: `python3 dev.py test -k schedule`, `python3 dev.py train
runs/repeating_patterns_len_20_per_10`. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
JOBS = {
    "train": ["cli.py", "train"],
    "test": ["-m", "pytest", "-q", "-m", "not gpu_ladder"],
    "ladder": ["-m", "pytest", "-q", "-m", "gpu_ladder", "--every-rung"],
}
DEFAULTS = {"train": ["runs/heartbeat_paper"], "test": ["-n", "2"]}
EXTRAS = {"ladder": "gpu-check"}

NO_VENV = """dev.py: this Python cannot make a virtual environment.
  On Debian or Ubuntu: apt-get install python3-venv     Anywhere: install uv. Then run the same command again."""


def fingerprint() -> str:
    """Changes when the environment must be made anew: other dependencies, another Python, a moved checkout."""
    text = (
        b"".join((ROOT / name).read_bytes() for name in ("setup.py", "pyproject.toml"))
        + f"{sys.version}{ROOT}".encode()
    )
    return hashlib.sha256(text).hexdigest()


def prepare(extra: str) -> None:
    """Makes .venv unless it is there and up to date, and installs the package with its tests' libraries and those of
    `extra`."""
    stamp, now = VENV / "stamp", fingerprint()
    done = stamp.read_text().split() if PYTHON.exists() and stamp.exists() else []
    extras = {"test", extra} - {""}
    if now in done and extras <= set(done):
        return
    print("dev.py: making .venv and installing into it (once, a minute or two)", file=sys.stderr)
    uv = shutil.which("uv")
    if now not in done:
        done = []
        make = [uv, "venv", "-q", "--seed", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
        make += ["--clear", str(VENV)]
        if subprocess.run(make, stdout=subprocess.DEVNULL).returncode:
            sys.exit(NO_VENV)
    pip = (
        [uv, "pip", "install", "--python", str(PYTHON)]
        if uv
        else [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    )
    if subprocess.run([*pip, "-q", "-e", f"{ROOT}[{','.join(sorted(extras))}]"]).returncode:
        sys.exit("dev.py: the installation failed; the lines above say why. Nothing outside .venv was changed.")
    stamp.write_text(" ".join(sorted({now, *done, *extras})))


def main() -> None:
    if sys.version_info < (3, 10):  # noqa: UP036  this file is what an older Python meets first
        sys.exit(f"dev.py: Python 3.10 or newer is needed, this is {sys.version.split()[0]}.")
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        sys.exit(__doc__)
    job, arguments = sys.argv[1], sys.argv[2:]
    prepare(EXTRAS.get(job, ""))
    process = subprocess.Popen([str(PYTHON), *JOBS[job], *(arguments or DEFAULTS.get(job, []))], cwd=ROOT)
    # Ctrl-C is for the job, which finishes its step and saves; this process only waits
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
