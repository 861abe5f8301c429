"""The one exception that means: the input is at fault, and here is the fix."""

from __future__ import annotations


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
