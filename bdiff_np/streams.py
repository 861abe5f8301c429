"""Standard output and standard error that may be full, closed or a pipe that nobody reads any more.

What cannot be written to standard output is a fault, told in a sentence; a reader that has left, such as `head`, ends
the command quietly, as it does other tools. What cannot be said on standard error costs nothing: it is lost, and the
work goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

READER_LEFT = 141  # the exit code of a tool that SIGPIPE ends: 128 + 13


class OutputFault(click.ClickException):
    """Standard output does not take what a command has to say."""

    exit_code = 2

    def show(self, file=None) -> None:
        click.echo(self.message, err=True)


class Steady:
    """Passes everything on to a stream, and loses what it does not take; None stands for one that was closed before the
    program began. number : its descriptor"""

    def __init__(self, stream: Any, number: int):
        self._stream, self._number = stream, number
        self._fault: Exception | None = None  # the first, which stays: what comes after it goes nowhere

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text == "":  # click asks so what kind of stream this is
            return 0
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda: self._stream.flush())

    def _try(self, action: Callable[[], Any]) -> None:
        if self._fault is None:
            try:
                action()
                return
            except RuntimeError:  # a signal handler's line, while another is being written
                return
            except (AttributeError, OSError, ValueError) as fault:  # of None, of a descriptor, of a closed object
                self._fault = fault
                self._send_to_nowhere()
        self._lost(self._fault)

    def isatty(self) -> bool:
        return self._stream is not None and not getattr(self._stream, "closed", False) and self._stream.isatty()

    def _lost(self, fault: Exception) -> None:
        """What a text that could not be written costs: nothing."""

    def _send_to_nowhere(self) -> None:
        """What is left in buffers, too: Python flushes them at its end, and would complain again."""
        with suppress(AttributeError, OSError, ValueError):
            if self._stream.fileno() == self._number:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._number)
                os.close(nowhere)


class _Output(Steady):
    def _lost(self, fault: Exception) -> None:
        if isinstance(fault, BrokenPipeError):
            raise SystemExit(READER_LEFT)
        reason = fault.strerror if isinstance(fault, OSError) else "it is closed"
        raise OutputFault(f"standard output cannot be written to: {reason}; free it, or send it to a file or /dev/null")


@contextmanager
def guarded() -> Iterator[None]:
    """While it lasts, sys.stdout and sys.stderr behave as above."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _occupy()
    before: tuple[Any, Any] = sys.stdout, sys.stderr
    for stream in before:
        if getattr(stream, "encoding", None) in ("ascii", "ANSI_X3.4-1968", "US-ASCII"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # as click would, past the guard
    sys.stdout, sys.stderr = _Output(before[0], 1), Steady(before[1], 2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Opens closed descriptors of the three standard streams on nothing: the next file to be opened would get one, and
    what a library writes to a standard stream would land in it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
