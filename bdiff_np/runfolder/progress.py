"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

CALL_SECONDS = 0.1  # of compiled work, until Ctrl-C is seen and the bar moves
QUIET_SECONDS = 5.0  # between two lines where there is no terminal


def progress(total: int, desc: str, initial: int = 0, leave: bool = True, quiet: float = QUIET_SECONDS):
    """Something with update(n), set_postfix_str(text), close(), that can stand in a `with`: tqdm's bar, or `Lines`
    where stderr is no terminal."""
    if not in_notebook() and not sys.stderr.isatty():
        return Lines(total, desc, initial, quiet)
    from tqdm import tqdm

    if in_notebook():  # a widget where ipywidgets is installed, else a line that is written anew
        from tqdm.auto import tqdm  # type: ignore[assignment]

    # some terminals have no width to tell, and a bar of width 0 would be none
    known = shutil.get_terminal_size((0, 0)).columns > 0
    return tqdm(
        total=total,
        desc=desc,
        initial=initial,
        leave=leave,
        file=sys.stderr,
        dynamic_ncols=known,
        ncols=None if known else 80,
    )


def in_notebook() -> bool:
    """Whether this process works for a notebook (Jupyter and what is built on it)."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class Lines:
    """Says every `quiet` seconds how far the work is; nothing at all of work that takes less."""

    def __init__(self, total: int, desc: str, initial: int = 0, quiet: float = QUIET_SECONDS):
        self.total, self.desc, self.done, self.initial, self.quiet, self.note = total, desc, initial, initial, quiet, ""
        self.start = self.last = time.monotonic()

    def update(self, n: int = 1) -> None:
        """n more are done; 0 before the first says that the work begins now."""
        self.done += n
        if self.done == self.initial:
            self.start = self.last = time.monotonic()
        if self.silence() > self.quiet and self.done > self.initial:
            left = (time.monotonic() - self.start) / (self.done - self.initial) * (self.total - self.done)
            self.say(f"{self.desc}: {self.done / self.total:.0%}, about {left:.0f} s left{self.note}")

    def silence(self) -> float:
        """Seconds since the last line, or since the start."""
        return time.monotonic() - self.last

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self.last = time.monotonic()

    def set_postfix_str(self, note: str, refresh: bool = False) -> None:
        self.note = f"; {note}"

    def close(self) -> None:
        pass

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def pace(count: int, seconds: float) -> int:
    """How many steps to take in the next compiled call, `count` having taken so long: CALL_SECONDS' worth, and at most
    four times as many."""
    return max(1, min(4 * count, int(count * CALL_SECONDS / max(seconds, 1e-9))))


def say_beside(bar, line: str) -> None:
    """A line on stderr while a bar of `progress` stands there."""
    if isinstance(bar, Lines):
        bar.say(line)
    else:
        bar.write(line, file=sys.stderr)


@contextmanager
def compiling(what: str, function: str | None) -> Iterator[None]:
    """Around the first call of a compiled function, named file.function: tells why nothing happens for a while, if that
    is so; for None it is not."""
    from bdiff_np.kernels.shared.compiled import cache_folder, is_compiled

    if function is None or is_compiled(function):
        yield
        return
    kept = "they are kept for later runs"
    if cache_folder() is None:
        kept = "no folder to keep them in can be written to, so that each run compiles anew; set NUMBA_CACHE_DIR to one"
    print(f"compiling the kernels of the {what}; {kept}", file=sys.stderr, flush=True)
    start = time.monotonic()
    yield
    print(f"compiled in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
