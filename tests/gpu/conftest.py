"""The ladder: what can be known of the GPU back ends on a machine without a GPU, rung by rung. All tests of this folder
are `-m gpu_ladder`.

On a machine with a GPU the same tests of rungs 2 and 4 run on the real CuPy; elsewhere on the stand-in of
tests/cuda_on_cpu, with the same .cu files compiled for the CPU.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

RUNGS = {
    0: "gate: the back ends import, and say why they cannot run and what fixes it",
    1: "compile: the .cu by NVRTC with CuPy's options, Numba's kernels to PTX and SASS",
    2: "run on the CPU: the same .cu against the NumPy definition, in several orders of threads",
    3: "sanitize: bounds, alignment, overflow, uninitialised memory, barriers, races; planted bugs are found",
    4: "host code: whole training steps, captured and replayed, on a strict stand-in for CuPy",
    5: "names: every name of CuPy's that the code uses exists in the real one",
    6: "simulator: Numba-CUDA's kernels on tiny grids",
    7: "static speed: wide loads, no local memory, occupancy",
}
FOLDER = Path(__file__).parent
TESTS = FOLDER.parent


def rung_of(nodeid: str) -> int | None:
    """The rung that a test belongs to, by its file's name; the tests of the tool itself are those of rung 3."""
    found = re.search(r"test_rung(\d)_\w+\.py", nodeid)
    return int(found[1]) if found else 3 if "test_cuda_on_cpu.py" in nodeid else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What looks at a session of its own comes last: by then that has ended."""
    items.sort(key=lambda item: item.get_closest_marker("child") is not None)
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu_ladder)


def tally(reporter) -> dict[int, dict[str, int]]:
    """Of each rung, how many tests passed, failed and were skipped."""
    found = {rung: {"passed": 0, "failed": 0, "skipped": 0} for rung in RUNGS}
    for outcome, kinds in (("passed", ("passed",)), ("failed", ("failed", "error")), ("skipped", ("skipped",))):
        for kind in kinds:
            for report in reporter.stats.get(kind, []):
                rung = rung_of(report.nodeid)
                if rung is not None and (report.when == "call" or kind != "passed"):
                    found[rung][outcome] += 1
    return found


def pytest_terminal_summary(terminalreporter, config):
    found = tally(terminalreporter)
    if not (config.getoption("--every-rung") or any(counts["passed"] or counts["failed"] for counts in found.values())):
        return  # a session of other tests
    terminalreporter.section("GPU ladder")
    for rung, counts in found.items():
        said = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n) or "no test was run"
        terminalreporter.write_line(f"rung {rung}  {said:32}  {RUNGS[rung]}")
    terminalreporter.write_line("rung 8  needs a GPU: python benchmarks/gpu_check.py")


def pytest_sessionfinish(session, exitstatus):
    if not session.config.getoption("--every-rung"):
        return
    found = tally(session.config.pluginmanager.get_plugin("terminalreporter"))
    if any(counts["skipped"] or not counts["passed"] for counts in found.values()):
        session.exitstatus = exitstatus or 1


def start(arguments: tuple[str, ...]):
    """A session of its own: (mode, arguments of pytest ...); its outcome."""
    from cuda_on_cpu import sanitize

    mode, *others = arguments
    return sanitize.run(
        mode,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(TESTS.parent),
        *others,
        seconds=300,
        cwd=TESTS,
    )


@pytest.fixture(scope="session", autouse=True)
def children(request):
    """Sessions that some tests look at, marked `child(mode, arguments of pytest ...)`: one after the other beside this
    one, from its beginning on."""
    pool = ThreadPoolExecutor(1)
    marks = {item.nodeid: mark for item in request.session.items if (mark := item.get_closest_marker("child"))}
    yield {nodeid: pool.submit(start, mark.args) for nodeid, mark in marks.items()}
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def child(request, children):
    """The outcome (sanitize.Outcome) of the test's own session."""
    return children[request.node.nodeid].result()


class Card:
    """A card to test on: the real one, or the stand-in.

    real : which. cupy, ops, step, chain, training, dense, arrays, family : the modules of our back end and what they
        stand on
    """

    def __init__(self, stand_in):
        self.stand_in, self.real = stand_in, stand_in is None
        self.cupy, self.ops = import_module("cupy"), import_module("bdiff_np.backends.cupy_ops")
        places = (
            "training.fused_step",
            "training.fused_chain",
            "training.training",
            "bernoulli.bernoulli",
            "dense.dense",
            "dense.arrays",
        )
        own = {place: import_module(f"bdiff_np.kernels.{place}_cupy") for place in places}
        self.step, self.chain, self.training, self.family, self.dense, self.arrays = own.values()

    def orders(self):
        """Runs the loop's body once in each order of threads and blocks; on a real card once."""
        if self.real:
            yield 0
            return
        from cuda_on_cpu import compile

        for order in (0, 1, 7):
            compile.order = order
            try:
                yield order
            finally:
                compile.order = 0

    @contextmanager
    def pretending(self, **limits):
        """Other limits of the pretended card, such as multiprocessors=7."""
        before = {name: getattr(self.stand_in.card, name) for name in limits}
        caches = import_module("bdiff_np.kernels.shared.cuda_cupy")
        try:
            self._set(caches, limits)
            yield
        finally:
            self._set(caches, before)

    def _set(self, caches, limits):
        for name, value in limits.items():
            setattr(self.stand_in.card, name, value)
        caches.multiprocessors.cache_clear()
        caches.shared_limit.cache_clear()


@pytest.fixture(scope="module")
def card():
    """The real CuPy where there is a GPU; elsewhere the stand-in, which is gone after the module, and so is what was
    imported with it."""
    from cuda_on_cpu import stand_in

    from bdiff_np import backends
    from bdiff_np.backends import gpu

    if backends.find("cupy").fault() is None:
        yield Card(None if hasattr(import_module("cupy"), "show_config") else stand_in)
        return
    asked = gpu.driver
    gpu.driver = lambda: gpu.Driver(13000, ("a stand-in",), "")
    try:
        with stand_in.installed():
            yield Card(stand_in)
    finally:
        gpu.driver = asked
