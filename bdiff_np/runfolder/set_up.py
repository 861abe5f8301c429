"""A back end's set-up in a process beside the training: the first steps of a small training of the same kind, for what
they leave on disk, as compiled functions.

The process reads what to do from its stdin, says nothing, and ends with its parent: when the parent is gone, however it
went, stdin is at its end.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

import numpy as np

from bdiff_np import config as configuration
from bdiff_np import evaluate, sample
from bdiff_np.model import Model, family_of, kind_of
from bdiff_np.train import Training

ROWS = 2  # of the small training
# What the process runs: with the modules of its parent, wherever those come from.
CODE = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from bdiff_np.runfolder import set_up; set_up.main()"


class SetUp:
    """A process that sets a back end up for a training. Each is to be stopped.

    backend : its name. fault : the reason in a line, once it has failed
    """

    def __init__(self, backend: str, training: Training):
        self.backend, self.fault = backend, ""
        self._complaints = tempfile.TemporaryFile()
        # in a session of its own, so that Ctrl-C does not reach it: its parent decides
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=self._complaints, start_new_session=True,
        )  # fmt: skip
        with suppress(OSError):  # it has ended already; `ended` says why
            assert self._process.stdin is not None
            pickle.dump(sys.path, self._process.stdin)
            pickle.dump(_kind(backend, training), self._process.stdin)
            self._process.stdin.flush()

    def ended(self) -> bool:
        """Whether the process has ended, well or, with a `fault`, not."""
        code = self._process.poll()
        if code and not self.fault:
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").split("\n")
            self.fault = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
        return code is not None

    def stop(self) -> None:
        """Ends the process, if it has not ended by itself."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._complaints.close()


def _kind(backend: str, training: Training) -> dict[str, Any]:
    """What makes a training of the same kind."""
    model, rows = training.model, training.rows.take(np.arange(min(ROWS, len(training.rows))))
    return {
        "backend": backend, "config": model.config.model_dump(mode="json"), "rows": rows,
        "state": model.family.state(model.chain),
    }  # fmt: skip


def first_steps(backend: str, config: dict, rows: np.ndarray, state: dict) -> None:
    """Does a little of all that a training and its end do with a back end."""
    settings = configuration.validate(config)
    family = family_of(settings)
    chain, data = family.restore(settings.model, state), kind_of(family).from_array(rows)
    training = Training(Model.build(settings, data.D, chain, backend=backend), data)
    training.advance(2)
    sample.draw(training.averaged, 0)
    evaluate.bound(training.averaged, data, evaluations=evaluate.GROUPS)


def main() -> None:
    """The process."""
    work = pickle.load(sys.stdin.buffer)

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    first_steps(**work)
    os._exit(0)  # at once, for a thread still reads stdin
