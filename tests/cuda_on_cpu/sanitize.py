"""Runs Python in a child process where kernels are compiled in one of the modes of compile.py, and collects what the
sanitizers report.

    done = sanitize.run("thread", "-m", "pytest", "-q", "tests/test_kernels_cuda.py", seconds=120)
    assert done.clean, done

    python -m cuda_on_cpu.sanitize thread -m pytest -q tests/test_kernels_cuda.py

Reports go to files, so that nothing that captures the child's output can lose them.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .compile import COMPILER, FOLDER

# that must be there before all others
LIBRARIES = {"address": ("libasan.so", "libstdc++.so"), "thread": ("libtsan.so", "libstdc++.so")}
SECONDS = 120
SAME_ADDRESSES = 0x0040000  # Linux: ADDR_NO_RANDOMIZE
# where one begins
REPORT = re.compile(r"^(?:==\d+==)?(?:ERROR|WARNING): \w+Sanitizer|^\S.*:\d+:\d+: runtime error: ", re.MULTILINE)


class Outcome(NamedTuple):
    """How a child ended.

    code : its exit code, negative for a signal, None if its time was up. reports : texts of the sanitizers. output :
        stdout and stderr
    """

    code: int | None
    reports: list[str]
    output: str

    @property
    def clean(self) -> bool:
        """Whether it came to its end without a fault and without a report."""
        return self.code == 0 and not self.reports

    def __str__(self) -> str:
        end = "no end in time" if self.code is None else f"exit code {self.code}"
        return "\n".join([end, *self.reports, self.output])


def run(mode: str, *arguments: str, seconds: float = SECONDS, cwd: Path | None = None) -> Outcome:
    """`python ARGUMENTS` in a mode, for so long at most, in the folder `cwd` or in this one."""
    with tempfile.TemporaryDirectory(prefix="cuda_on_cpu-") as folder:
        child = subprocess.Popen(
            [sys.executable, *arguments], env=environment(mode, Path(folder) / "report"), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", cwd=cwd, start_new_session=True,
            preexec_fn=_same_addresses if mode == "thread" else None,
        )  # fmt: skip
        try:
            output, _ = child.communicate(timeout=seconds)
            code = child.returncode
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with the processes that it started itself
            (output, _), code = child.communicate(), None
        texts = [path.read_text(errors="replace") for path in sorted(Path(folder).iterdir())]
    return Outcome(code, [report for text in [*texts, output] for report in split(text)], output)


def split(text: str) -> list[str]:
    """The reports in what a sanitizer wrote, or in a program's output."""
    starts = [match.start() for match in REPORT.finditer(text)]
    return [text[start:stop].strip("=\n") for start, stop in zip(starts, [*starts[1:], len(text)])]


def environment(mode: str, reports: Path) -> dict[str, str]:
    """The variables of a child. reports : beginning of the files' names

    The sanitizer of undefined behaviour has a library of its own. It takes its file from compile.py alone, and when it
    begins, it sends the address sanitizer's further reports where UBSAN_OPTIONS says: so each has a file of its own,
    lest one overwrites the other's.
    """
    common = "halt_on_error=0:log_path="
    found = {
        **os.environ, "CUDA_ON_CPU_MODE": mode, "PYTHONMALLOC": "malloc", "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ASAN_OPTIONS": f"detect_leaks=0:detect_stack_use_after_return=0:allocator_may_return_null=1:{common}{reports}",
        "UBSAN_OPTIONS": f"{common}{reports}-later",
        "CUDA_ON_CPU_REPORTS": f"{reports}-undefined",
        "TSAN_OPTIONS": f"report_signal_unsafe=0:report_thread_leaks=0:suppress_equal_addresses=0:{common}{reports}",
        "PYTHONPATH": os.pathsep.join([str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    if mode in LIBRARIES:
        found["LD_PRELOAD"] = " ".join(_library(name) for name in LIBRARIES[mode])
    return found


def missing(mode: str) -> str:
    """Why a mode cannot be used on this machine, or ""."""
    if not sys.platform.startswith("linux"):
        return "CUDA on the CPU runs on Linux only"
    if shutil.which(COMPILER) is None:
        return f"{COMPILER} is not installed"
    lacking = [name for name in LIBRARIES.get(mode, ()) if not Path(_library(name)).is_file()]
    return f"{COMPILER} has no {' and no '.join(lacking)}" if lacking else ""


def _library(name: str) -> str:
    done = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return str(Path(done.stdout.strip()).resolve())


def _same_addresses() -> None:
    """The thread sanitizer cannot do with every layout of memory that a newer Linux makes up; where this is not
    allowed, it has to."""
    _libc().personality(SAME_ADDRESSES)


@lru_cache(1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


if __name__ == "__main__":
    done = run(*sys.argv[1:])
    print(done)
    sys.exit(0 if done.clean else done.code or 1)
