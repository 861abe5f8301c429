"""Times on a card: every kernel beside the least that it can take, and whole training steps and samplers beside
PyTorch, by the card's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import gpu_kernels
from contestants import SHORT, Entry, Size, Worker, make_problem

REPETITIONS = 7
MILLISECONDS = 10.0  # that a repetition lasts at least
FAILED, LEFT_OUT = "failed: ", "left out: "
HELD, MOST = 20, 1 << 16  # launches of a graph, and of a repetition at most
TOGETHER = {"layer_norm_backward<float>": ("layer_norm_sums<float>",)}  # what launches more than its own kernel
BATCHES = tuple(2**k for k in range(10, 19, 2))
PAPER, WIDE = (20, (50, 50)), (784, (512, 512, 512))
CONTESTANTS = [
    Entry("cupy", "", "contestants", "Ours", "cupy", 1),
    Entry("numba-cuda", "", "contestants", "Ours", "numba-cuda", 1),
    Entry("torch eager", "PyTorch", "peer_torch", "Torch", "eager cuda", 1),
    Entry("torch compile, CUDA graph", "PyTorch", "peer_torch", "Torch", "compile cuda", 1),
]
STEPS = {"eager cuda": 50}  # of a repetition; others take 500


def seconds(launch: Callable[[], None], repetitions: int = REPETITIONS) -> list[float]:
    """Of one launch, each repetition's mean, by CUDA events around as many replays of a graph of HELD launches as last
    MILLISECONDS.

    A graph, because Python takes some 10 us to launch, which is more than many kernels run.
    """
    import cupy

    start, stop, stream = cupy.cuda.Event(), cupy.cuda.Event(), cupy.cuda.Stream()
    launch()
    with stream:
        stream.begin_capture()
        for _ in range(HELD):
            launch()
        graph = stream.end_capture()

    def elapsed(count: int) -> float:
        start.record()
        for _ in range(count):
            graph.launch()
        stop.record()
        stop.synchronize()
        return cupy.cuda.get_elapsed_time(start, stop)

    count = 1
    while (took := elapsed(count)) < MILLISECONDS and count < MOST // HELD:
        count = min(10 * count, max(count + 1, int(1.2 * count * MILLISECONDS / max(took, 1e-3))))
    return [1e-3 * elapsed(count) / count / HELD for _ in range(repetitions)]


def kernels(repetitions: int = REPETITIONS) -> Iterator[str]:
    """A table, line by line: each kernel's time, its share of the bound of an H100."""
    yield "| kernel | count | median | min to max | bound | share of it |"
    yield "|---|--:|--:|--:|---|--:|"
    works = {work.kernel: work for work in gpu_kernels.works()}
    for name, launch in gpu_kernels.launches().items():
        found, work = seconds(launch, repetitions), works[name]
        least, bound = work.least()
        least += sum(works[other].least()[0] for other in TOGETHER.get(name, ()))
        middle = statistics.median(found)
        yield (
            f"| `{name}` | {work.count:,} {work.unit}s | {1e6 * middle:.4g} us | {1e6 * min(found):.4g} to "
            f"{1e6 * max(found):.4g} | "
            f"{1e6 * least:.4g} us, {bound} | {least / middle:.0%} |"
        )


def steps(net: tuple[int, tuple[int, ...]], batches=BATCHES, repetitions: int = REPETITIONS) -> Iterator[str]:
    """A table of us per training step of a net, by batch, and how many times as long as ours the others take."""
    yield "| batch | " + " | ".join(entry.name for entry in CONTESTANTS) + " | bound of `take` |"
    yield "|--:|" + "--:|" * (len(CONTESTANTS) + 1)
    missed: list[str] = []
    for batch in batches:
        problem = make_problem(Size(*net, batch))
        found = [
            _of_worker(missed, entry, problem, repetitions, "run", STEPS.get(entry.mode, 500)) for entry in CONTESTANTS
        ]
        yield (
            f"| {batch:,} | "
            + " | ".join(_cell(middle, found[0]) for middle in found)
            + f" | {_bound('take', net, batch, 1e6)} |"
        )
    yield from missed


def samplers(net: tuple[int, tuple[int, ...]], batches=BATCHES, repetitions: int = 3) -> Iterator[str]:
    """A table of seconds for that many rows through 2000 steps and through SHORT of them."""
    problem, missed = make_problem(Size(*net, 64)), []
    for length in (problem.T, SHORT):
        yield f"\n{length} steps, seconds:\n"
        # PyTorch's sampler is not captured, only its training step is.
        yield (
            "| rows | "
            + " | ".join(entry.name.replace(", CUDA graph", "") for entry in CONTESTANTS)
            + " | bound of `walk_back` |"
        )
        yield "|--:|" + "--:|" * (len(CONTESTANTS) + 1)
        for rows in batches:
            middles = [_of_worker(missed, entry, problem, repetitions, "sample", rows, length) for entry in CONTESTANTS]
            cells = ["-" if middle is None else f"{middle:.4g}" for middle in middles]
            yield f"| {rows:,} | " + " | ".join(cells) + f" | {_bound('walk_back', net, rows * length, 1)} |"
    yield from missed


def _bound(kernel: str, net: tuple[int, tuple[int, ...]], rows: int, unit: float) -> str:
    """What a fused kernel takes at least for so many rows, on an H100, in seconds times `unit`; it is known for the
    paper's net."""
    if net != PAPER:
        return "-"
    work = next(work for work in gpu_kernels.works() if work.kernel == kernel)
    return f"{unit * work.least()[0] * rows / gpu_kernels.N:.4g}"


def _cell(middle: float | None, ours: float | None) -> str:
    """Microseconds, and how many times as many as ours."""
    if middle is None:
        return "-"
    return f"{1e6 * middle:,.4g}" + (f" ({middle / ours:.2g}x)" if ours is not None and middle != ours else "")


def _of_worker(
    missed: list[str], entry: Entry, problem, repetitions: int, command: str, *arguments: int
) -> float | None:
    """Median seconds, of a step for "run", of all for "sample", of a contestant in its own process, after once in vain;
    None where it cannot run.

    missed : takes the reason then, a line that begins with FAILED for our own back ends and LEFT_OUT for others
    """
    share = arguments[0] if command == "run" else 1
    try:
        with Worker(entry) as worker:
            worker.build(problem)
            worker.call(command, *arguments)
            return statistics.median(worker.call(command, *arguments)[0] / share for _ in range(repetitions))
    except Exception as fault:  # of any kind: most of the libraries are not ours
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        missed.append(f"{LEFT_OUT if entry.owner else FAILED}{entry.name} at {problem.size}: {reason}")
        return None
