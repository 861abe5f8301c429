"""A few of the signals that tests/killing.py sends by the hundred."""

from __future__ import annotations

import signal

import killing
import pytest
from here import BACKENDS


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs signals of POSIX")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_killed_at_random_and_resumed(tmp_path, backend, request):
    """KILL, TERM, INT and HUP at random moments: the end is that of an undisturbed training, to the last bit."""
    if backend not in BACKENDS:
        pytest.skip(f"{backend} does not work here")
    sent = killing.disturbed(tmp_path, backend, request.config.getoption("--signals"), seed=7)
    assert sent.total() >= request.config.getoption("--signals")
