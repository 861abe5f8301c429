"""The crew of threads: every task done once, no phase before the one it needs is done, and nobody left waiting."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from functools import lru_cache

import numpy as np
import pytest

from bdiff_np.kernels.shared import crew_numba as crew
from bdiff_np.kernels.shared.compiled_numba import njit

THREADS, TASKS = (1, 2, 3, 5), (1, 2, 7)  # more than there are cores, more than there are tasks
MODULUS, WIDTH, PHASES = 1_000_003, 40, 20_000
SOON = 60  # seconds within which what is not stuck has come to its end, on any machine


@njit(nogil=True)
def relay(own, meet, sizes, sums, marks):
    """Every task makes numbers from all those that the phase before left.

    meet : whether the threads wait for each other first, so that none has done all before another has begun
    sizes : (phases,) tasks of each. sums : (2, tasks, WIDTH) int64, of this phase and of the one before, in turn
    marks : (threads, phases, tasks), how often a thread has done a task
    """
    before = 0
    if meet:
        crew.done(own)
        before += own.threads
    for s in range(sizes.size):
        if not crew.ready(own, before):
            return
        for i in range(sizes[s]):
            k = (i + crew.first(own, sizes[s])) % sizes[s]
            if crew.taken(own, k, s):
                continue
            total = s + k
            for j in range(sums.shape[1]):
                for w in range(WIDTH):
                    total += sums[(s + 1) % 2, j, w] * (j + w + 1)
            for w in range(WIDTH):
                sums[s % 2, k, w] = (total + w * k) % MODULUS
            marks[own.rank, s, k] += 1
            crew.done(own)
        before += sizes[s]


@njit(nogil=True)
def stopped(own, tasks, last, reached):
    """One task of phase `last` is never done: its thread stops the crew. reached : (threads,) the phase that each
    thread has come to"""
    crew.done(own)
    before = own.threads  # all have begun
    for s in range(2 * last + 100):
        if not crew.ready(own, before):
            return
        reached[own.rank] = s
        for i in range(tasks):
            k = (i + crew.first(own, tasks)) % tasks
            if crew.taken(own, k, s):
                continue
            if s == last and k == tasks - 1:
                crew.stop(own)
                return
            crew.done(own)
        before += tasks


@njit(nogil=True)
def ready(own, before):
    return crew.ready(own, before)


def returned(crews, call, *arguments):
    """What a call gives, which has to come back: if it does not, the threads of `crews` are freed, and the test
    fails."""
    with ThreadPoolExecutor(1) as runner:
        running = runner.submit(call, *arguments)
        try:
            return running.result(SOON)
        except TimeoutError:
            for own in crews:
                own.counters[crew.DONE] = 1 << 62
            pytest.fail("threads still wait")


def run(threads, tasks, work, *arguments):
    """crew.run, which has to come back."""
    crews = []

    def watched(own, *given):
        crews.append(own)
        work(own, *given)

    returned(crews, crew.run, threads, tasks, watched, *arguments)


def phases(tasks):
    """Phases of `tasks` tasks, of one, and of something between, in turn."""
    return np.resize([tasks, 1, (tasks + 1) // 2], PHASES)


def room(threads, tasks):
    return np.zeros((2, tasks, WIDTH), np.int64), np.zeros((threads, PHASES, tasks), np.int64)


@lru_cache(None)
def expected(tasks):
    """What the relay leaves, one phase after the other."""
    sums, w = np.zeros((2, tasks, WIDTH), np.int64), np.arange(WIDTH)
    for s, size in enumerate(phases(tasks)):
        k = np.arange(size)[:, None]
        total = (sums[(s + 1) % 2] * (np.arange(tasks)[:, None] + w + 1)).sum()
        sums[s % 2, :size] = (s + k + total + w * k) % MODULUS
    return sums


def start(threads, tasks):
    """A crew that nobody runs."""
    return [
        crew.Crew(rank, threads, np.zeros(32, np.int64), np.full(tasks * crew.APART, -1, np.int64), crew.pause())
        for rank in range(threads)
    ]


# In one thread
# ----------------------------------------------------------------------------------------------------------------------


def test_a_task_is_taken_once():
    """The first who asks for a task of a phase has it; then it is taken, in this phase and in those before, but not in
    the next, nor are others."""
    own = start(1, 3)[0]
    assert [crew.taken(own, 1, phase) for phase in (0, 0, 1, 0, 1, 5, 4, 5)] == [
        False,
        True,
        False,
        True,
        True,
        False,
        True,
        True,
    ]
    assert [crew.taken(own, task, 5) for task in (0, 2, 0, 2)] == [False, False, True, True]


def test_ready_tells_done_from_never():
    """Ready when as many tasks are done as are needed, even in a crew that was stopped; not ready in a stopped crew
    that lacks some."""
    own = start(1, 1)[0]
    assert returned([own], ready, own, 0)
    for _ in range(3):
        crew.done(own)
    assert returned([own], ready, own, 3)
    crew.stop(own)
    assert [returned([own], ready, own, before) for before in (2, 3, 4)] == [True, True, False]


@pytest.mark.parametrize(
    "threads, tasks, expected",
    [(1, 7, [0]), (2, 7, [0, 3]), (3, 7, [0, 2, 4]), (3, 3, [0, 1, 2]), (4, 2, [0, 0, 1, 1])],
)
def test_threads_begin_far_apart(threads, tasks, expected):
    """Each at its own share of the tasks."""
    assert [crew.first(own, tasks) for own in start(threads, tasks)] == expected


# In many
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("tasks", TASKS)
def test_every_task_is_done_once_after_all_that_it_needs(threads, tasks):
    """Over thousands of phases: marks are 1 for each task, and numbers made from all of the phase before are those of
    one thread."""
    sizes, (sums, marks) = phases(tasks), room(threads, tasks)
    run(threads, tasks, relay, True, sizes, sums, marks)
    np.testing.assert_array_equal(marks.sum(0), np.arange(tasks) < sizes[:, None])
    np.testing.assert_array_equal(sums, expected(tasks))


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_thread_that_is_held_up_is_covered(late):
    """The others do everything; when it comes at last, it finds nothing to do."""
    sizes, (sums, marks), through = phases(7), room(3, 7), threading.Semaphore(0)

    def work(own, *arguments):
        if own.rank == late:
            assert through.acquire(timeout=SOON) and through.acquire(timeout=SOON)
        relay(own, *arguments)
        through.release()

    run(3, 7, work, False, sizes, sums, marks)
    np.testing.assert_array_equal(sums, expected(7))
    assert not marks[late].any() and marks.sum() == sizes.sum()


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("tasks", TASKS)
def test_stop_frees_all_who_wait(threads, tasks):
    """No thread goes beyond the phase in which the crew was stopped, and none stays."""
    for last in (0, 1, 50, 200):
        reached = np.full(threads, -1)
        run(threads, tasks, stopped, tasks, last, reached)
        assert reached.max() == last


# The call
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3, 5, 2])
def test_threads_run_at_once_and_all_have_ended(threads):
    """Ranks 0 .. n-1, the first in the thread that calls; they meet, and those that end after it are waited for."""
    meeting, first_is_through, ended = threading.Barrier(threads), threading.Event(), {}

    def work(own, argument):
        meeting.wait(SOON)
        assert own.rank == 0 or first_is_through.wait(SOON)
        ended[own.rank] = threading.get_ident(), own.threads, argument
        first_is_through.set()

    crew.run(threads, 1, work, "argument")
    assert sorted(ended) == list(range(threads)) and len({ident for ident, _, _ in ended.values()}) == threads
    assert ended[0] == (threading.get_ident(), threads, "argument")


def test_a_fault_in_another_thread_is_raised():
    """Not lost with its thread; the crew can be used again."""

    def work(own):
        if own.rank == 2:
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            crew.run(3, 1, work)


def relay_by_three():
    sizes, (sums, marks) = phases(2), room(3, 2)
    crew.run(3, 2, relay, True, sizes, sums, marks)
    assert np.array_equal(sums, expected(2))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own():
    """Those of the parent, which ran before, do not come along."""
    relay_by_three()
    child = multiprocessing.get_context("fork").Process(target=relay_by_three)
    child.start()
    child.join(SOON)
    if child.is_alive():
        child.kill()
        pytest.fail("the child waits for threads that it has not")
    assert child.exitcode == 0
