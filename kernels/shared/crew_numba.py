"""A crew of threads that works through phases of tasks inside compiled code, without Python, without a pool of Numba's
and without locks.

The tasks of one phase do not depend on each other, but need all earlier phases. Every thread runs the same loop over
the phases:

    if not ready(crew, before): return      waits until as many tasks are done as all phases before this one have
    for k in the phase's tasks, its own first:
        if taken(crew, k, phase): continue  somebody else has it
        ... the task ...
        done(crew)

Threads come back to the same tasks in every phase, so that what these need is still in their core's cache; but one that
the system holds up is covered by the others, task by task. A phase costs the time in which one core sees another's
write, some 100 ns; a parallel region of OpenMP under Numba costs several us.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from bdiff_np.kernels.shared.compiled import MOST_THREADS
from bdiff_np.kernels.shared.compiled_numba import njit

APART = 16  # int64 between two numbers that different threads write: more than a cache line
DONE, STOPPED = 0, APART  # entries of the counters
PATIENCE = 2000  # looks at a counter before the core is offered to others


class Crew(NamedTuple):
    """What a thread of a crew knows, `rank` being its own number."""

    rank: int
    threads: int
    counters: np.ndarray  # (32,) int64
    claims: np.ndarray  # (tasks of the largest phase * APART,) int64, the newest phase in which each was taken
    pause: int  # address of the system's call with which a thread offers its core to others


def cores() -> int:
    """Threads of a crew, unless told otherwise: NUMBA_NUM_THREADS, by default the cores there are."""
    return config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]


def run(threads: int, tasks: int, work, *arguments) -> None:
    """work(crew, *arguments) in so many threads at once, this one among them; returns when all have.

    tasks : of the largest phase. work : compiled with nogil=True
    """
    shared = np.zeros(2 * APART, np.int64), np.full(tasks * APART, -1, np.int64), pause()

    def part(rank: int) -> None:
        try:
            work(Crew(rank, threads, *shared), *arguments)
        except BaseException:  # its tasks will never be done: nobody shall wait for them
            shared[0][STOPPED] = 1
            raise

    others: list[Future] = []
    try:
        others += [_pool().submit(part, rank) for rank in range(1, threads)]
        part(0)
    finally:
        wait(others)
    for other in others:
        other.result()


@lru_cache(1)
def _pool() -> ThreadPoolExecutor:
    """Threads for every crew; one is made when none is idle. A crew that lacked one would wait for ever."""
    return ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="bdiff")


if hasattr(os, "register_at_fork"):  # threads do not come along into a forked process
    os.register_at_fork(after_in_child=_pool.cache_clear)


@lru_cache(1)
def pause() -> int:
    """Address of the system's call with which a thread offers its core to others."""
    if sys.platform == "win32":
        call = ctypes.windll.kernel32.SwitchToThread
    else:
        call = ctypes.CDLL(None).sched_yield
    return ctypes.cast(call, ctypes.c_void_p).value or 0


@intrinsic
def _fetch_and_add(typing, address, amount):
    """Atomic fetch-and-add on an int64 in memory."""

    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "acq_rel")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _load(typing, address):
    """Atomic load of an int64 in memory, with acquire order."""

    def codegen(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _call(typing, address):
    """A call without arguments."""

    def codegen(context, builder, signature, arguments):
        builder.call(builder.inttoptr(arguments[0], ir.FunctionType(ir.IntType(32), []).as_pointer()), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def _compare_and_swap(typing, address, expected, value):
    """Atomic compare-and-swap of an int64 in memory; whether it was done."""

    def codegen(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.extract_value(builder.cmpxchg(pointer, arguments[1], arguments[2], "acq_rel", "monotonic"), 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@njit
def taken(crew, task, phase):
    """Whether the task of this phase is somebody else's; if not, it is the caller's now."""
    address = crew.claims.ctypes.data + 8 * APART * task
    newest = _load(address)
    return newest >= phase or not _compare_and_swap(address, newest, phase)


@njit
def first(crew, tasks):
    """The first of a thread's own tasks, of so many."""
    return tasks * crew.rank // crew.threads


@njit
def done(crew):
    _fetch_and_add(crew.counters.ctypes.data + 8 * DONE, 1)


@njit
def stop(crew):
    _fetch_and_add(crew.counters.ctypes.data + 8 * STOPPED, 1)


@njit
def ready(crew, before):
    """Returns True when `before` tasks are done, False if that will never be."""
    looks = 0
    while _load(crew.counters.ctypes.data + 8 * DONE) < before:
        if _load(crew.counters.ctypes.data + 8 * STOPPED) != 0:
            return False
        looks += 1
        if looks > PATIENCE:
            _call(crew.pause)
    return True
