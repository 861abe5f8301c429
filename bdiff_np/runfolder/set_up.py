"""A back end's set-up in a process beside the training: a little of all that a training does there, for what it leaves
on disk, as compiled functions.

The process reads what to do from its stdin, says nothing, and does not outlive its parent: however that went, its stdin
is at its end then.
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
# What the process runs: the modules of its parent, wherever those come from.
CODE = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from bdiff_np.runfolder import set_up
set_up.main()
"""


class SetUp:
    """A process that sets a back end up for a training. `stop` leaves nothing of it. Raises OSError where none can be
    begun.

    fault : once it has failed, why, in a line; empty otherwise
    """

    def __init__(self, backend: str, training: Training):
        if not sys.executable:
            raise OSError("Python does not know where it stands")
        task = pickle.dumps(sys.path) + pickle.dumps(_small(backend, training))
        self.fault = ""
        self._complaints = tempfile.TemporaryFile()
        # In a session of its own, for Ctrl-C is its parent's business. Not of low priority: until it has ended, the
        # steps are taken on a slower back end.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=self._complaints, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        with suppress(OSError):  # it has ended already: `ended` says why
            self._stdin.write(task)
            self._stdin.flush()

    def ended(self) -> bool:
        """Whether the process has ended, well or with a fault."""
        code = self._process.poll()
        if code and not self.fault:
            self._complaints.seek(0)
            lines = self._complaints.read().decode(errors="replace").split("\n")
            self.fault = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
        return code is not None

    def stop(self) -> None:
        with suppress(OSError):  # of what it has not read
            self._stdin.close()
        self._process.kill()
        self._process.wait()
        self._complaints.close()


def _small(backend: str, training: Training) -> dict[str, Any]:
    """What `work` needs for a training of this kind."""
    model, rows = training.model, training.rows.take(np.arange(min(ROWS, len(training.rows))))
    config, state = model.config.model_dump(mode="json"), model.family.state(model.chain)
    return {"backend": backend, "config": config, "rows": rows, "state": state}


def work(backend: str, config: dict[str, Any], rows: np.ndarray, state: dict[str, np.ndarray]) -> None:
    """A little of all that a training does on a back end: steps, the bound and samples, of a few rows."""
    settings = configuration.validate(config)
    family = family_of(settings)
    data = kind_of(family).from_array(rows)
    model = Model.build(settings, data.D, family.restore(settings.model, state), backend=backend)
    training = Training(model, data)
    training.advance(2)
    sample.draw(training.averaged, 0)
    evaluate.bound(training.averaged, data, evaluations=evaluate.GROUPS)


def main() -> None:
    """The process."""
    task = pickle.load(sys.stdin.buffer)

    def leave_with_the_parent() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=leave_with_the_parent, daemon=True).start()
    work(**task)
    os._exit(0)  # at once: a thread still reads
