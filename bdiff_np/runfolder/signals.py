"""Ctrl-C, and what queues and containers send before they kill, TERM and HUP: a training ends in good order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bdiff_np.streams import Steady

NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}  # Windows has no SIGHUP
CONCLUDING = "finishing the step, saving, drawing the pictures"


class Watch:
    """From `with` on, notes the first of some signals and raises KeyboardInterrupt; after it stderr and the handlers
    are what they were. A signal that is ignored stays so.

    While `patient`, the first signal is noted alone: who works looks at `number`. A second one always raises. In
    another thread than the main one Python has no handlers: there none is set, and nothing is noted.

    names : of the signals. doing : what is done yet after the first, in words
    number : of the first signal, None before it
    """

    def __init__(self, names: Iterable[str] = tuple(NAMES), doing: str = CONCLUDING) -> None:
        self.names, self.doing = names, doing
        self.number: int | None = None
        self._raised = False
        self._patient = False
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """As a shell gives it for a process that a signal ended."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Watch:
        self._stderr, self._steady = sys.stderr, Steady(sys.stderr, 2)
        if threading.current_thread() is not threading.main_thread():
            return self
        sys.stderr = self._steady  # type: ignore[assignment]
        for name in self.names:
            number = getattr(signal, name, 0)
            before = signal.getsignal(number) if number else None  # None for a handler that is not Python's, too
            if before in (None, signal.SIG_IGN):  # nohup and a shell's & want it so
                continue
            self._before[number] = before
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if sys.stderr is self._steady:
            sys.stderr = self._stderr

    def caused(self, fault: BaseException) -> bool:
        """Whether a signal lies behind an exception. Python makes others of a KeyboardInterrupt here and there, such as
        a RuntimeError while a class is made."""
        return self._raised or isinstance(fault, KeyboardInterrupt)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Around work that looks at `number` itself."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _on_signal(self, number: int, _) -> None:
        first, self.number = self.number is None, self.number or number
        if not (first and self._patient):
            self._raised = True
            raise KeyboardInterrupt
        name = NAMES[signal.Signals(number).name]
        print(f"\n{name}: {self.doing} (again to leave at once)", file=sys.stderr)
