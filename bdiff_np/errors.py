"""The one exception that means: the input is at fault, and here is the cure."""

from __future__ import annotations


class InputError(ValueError):
    """A fault in what the user gave: a file, an option, a checkpoint.

    The message is one clear sentence (one line per fault) that names the place, what is wrong and the cure. The command
    line prints it without a traceback and leaves with exit code 2; from Python it is an ordinary ValueError.
    """


class Unavailable(InputError):
    """A back end that cannot run here: the reason and the cure, each half a sentence."""

    def __init__(self, backend: str, reason: str, cure: str):
        super().__init__(f"--backend {backend}: {reason}; {cure}")
        self.backend, self.reason, self.cure = backend, reason, cure

    def __reduce__(self):  # from another process it comes back whole
        return type(self), (self.backend, self.reason, self.cure)
