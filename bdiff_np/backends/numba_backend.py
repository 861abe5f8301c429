"""What is known of the back end Numba before it is loaded.

It saves the better part of NumPy's time and costs its set-up, about a second where its kernels have been compiled
before and up to half a minute where not (benchmarks/RESULTS.md). A training goes on on NumPy during that half minute:
another process compiles, for the compiler would hold the interpreter's lock, and what it compiled is found on disk.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from bdiff_np.backends import Backend, Estimate, Work
from bdiff_np.errors import InputError, Unavailable, short
from bdiff_np.kernels.shared.compiled import MOST_THREADS

NUMPY = "numpy"  # the back end that trains while the kernels are compiled
LOAD = 1.0  # seconds, of kernels that have been compiled before


class Compiled(NamedTuple):
    """A kind of work, by the compiled function that does it."""

    function: str
    saved: float  # of NumPy's time, at least
    compile: float  # seconds


WORK = {
    "training": Compiled("fused_step_numba.take", 0.6, 27.0),  # with the sampler and the bound, which it uses too
    "sampling": Compiled("fused_chain_numba.walk_back", 0.8, 7.0),
    "evaluation": Compiled("fused_kl_numba.work_out", 0.6, 10.0),
}


class Numba(Backend):
    """NumPy's arrays, our own loops compiled by Numba."""

    name, order = "numba", 1
    packages = {"Numba": ("numba",), "llvmlite": ("llvmlite",)}

    def fault(self) -> Unavailable | None:
        if find_spec("numba") is None:
            return Unavailable(self.name, "Numba is not installed", "pip install numba, or take --backend numpy")
        asked = os.environ.get("NUMBA_NUM_THREADS", "1").strip()
        if not re.fullmatch("[0-9]{1,9}", asked) or not 1 <= int(asked) <= MOST_THREADS:
            fix = f"set a whole number from 1 to {MOST_THREADS}, or unset it"
            return Unavailable(self.name, f"NUMBA_NUM_THREADS is {short(repr(asked), 40)}", fix)
        return None

    def propose(self, work: Work, best: Estimate) -> Estimate:
        if (missing := self.fault()) is not None:
            return best._replace(reason=missing.reason)
        from bdiff_np.kernels.shared.compiled import cache_folder, is_compiled

        function, saved, to_compile = WORK[work.kind]
        there = is_compiled(function)
        cost = LOAD if there else to_compile
        seconds, meanwhile = (1 - saved) * work.seconds + cost, ""
        other = f"{(1 - saved) * work.seconds:.0f} s on Numba and {cost:.0f} s, "
        other += "to load its kernels" if there else "once, to compile its kernels"
        if work.kind == "training" and not there and cache_folder() is not None and work.seconds > to_compile:
            left = (1 - saved) * (work.seconds - to_compile)
            seconds, meanwhile = to_compile + LOAD + left, NUMPY
            other = f"or {to_compile:.0f} s there while Numba's kernels are compiled, once, then {left:.0f} s on Numba"
        reason = f"about {work.seconds:.0f} s on NumPy, {other}"
        if seconds >= work.seconds:
            return best._replace(reason=reason)
        try:
            import_module("bdiff_np.backends.numba_ops")
            from bdiff_np.kernels.dense.product_numba import exists
        except InputError as fault:
            return best._replace(reason=str(fault))
        if not exists():
            return best._replace(
                reason="there are no matrix products of compiled code for this processor, and NumPy's "
                "BLAS does not show its own"
            )
        return Estimate(self.name, seconds, reason, meanwhile)


BACKEND = Numba()
