"""What is known of the back end NumPy."""

from __future__ import annotations

from bdiff_np.backends import Backend

# Seconds, one core of a 2.1 GHz Xeon: of a training step whatever its size, of a row for each parameter, of a row for
# each unit.
STEP, PARAMETER, UNIT = 3e-4, 2e-11, 8e-9
# of an element of an evaluation, for its noise and its KL, on an AMD EPYC (4 million steps of 20: 28 s, 4 of them in
# the network)
ELEMENT = 3e-7
TRAINING = 2.5  # a training row, forward and backward, in forward rows


class NumPy(Backend):
    """Arrays on the host; the reference of all other back ends."""

    name, order = "numpy", 0
    packages = {"NumPy": ("numpy",)}


BACKEND = NumPy()
