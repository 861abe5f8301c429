"""Speed: one training step and the sampler, side by side on every back end, PyTorch and JAX.

    python benchmarks/run.py                                    everything, under ten minutes on two cores
    python benchmarks/run.py --sizes 20-50-50-20@64 --backends numba,jax --parts steps
    python benchmarks/run.py --family gaussian --parts steps,sampler                       points instead of bits
    python benchmarks/run.py --pictures docs/pictures --json --out speed.json

All take the same step: same net and starting weights, same data, fresh noise, same loss, AdamW, clipping, average of
the weights: that of train.py with its defaults. First, all losses and gradients must agree with the float64 definition.
Each contestant has a process of its own, and each repetition goes around all of them, so that what else the machine
does meets all alike.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import time
from contextlib import ExitStack
from importlib import metadata, util
from pathlib import Path
from typing import Any

import click
import numpy as np
import speed_table as table
from contestants import SHORT, Entry, Ours, Problem, Size, Worker, make_problem
from families import FAMILIES

TOLERANCE = 1e-4  # of losses and gradients in float32, relative
# seconds before each timed call: threads of OpenBLAS and OpenMP that have no more work turn round for some 30 ms before
# they sleep
CALM = 0.1
CHECKED, TOLERANCE_MOVED = (
    3,
    0.01,
)  # Adam's first steps are signs, and those of gradients near zero are a matter of rounding
LONG = 3  # seconds of a draw beside which compiling is little
MOST_APART = 6  # standard deviations, the largest of all moments of a sample
QUIET = 0.05  # share of the cores that others may take before a table says that it is not to be trusted
PARTS = ("steps", "sampler", "scaling")
PEERS = {"torch": "pip install torch", "jax": "pip install jax"}
TUNING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # set by hand they would tune the BLAS of one contestant


# Who takes part -------------------------------------------------------------------------------------------------------


def lineup(names: list[str] | None, threads: int) -> list[Entry]:
    """The contestants, those of all back ends and peers for None. Raises click.BadParameter for a name that is
    neither."""

    from bdiff_np import backends

    ours = sorted(backends.names(), key=lambda name: name != "numpy")
    if unknown := set(names or ()) - {*ours, *PEERS}:
        raise click.BadParameter(
            f"{', '.join(sorted(unknown))}: there is {', '.join((*ours, *PEERS))}", param_hint="--backends"
        )
    entries = [Entry(name, "", "contestants", "Ours", name, threads) for name in ours]
    entries += [
        Entry(f"torch {mode}", "PyTorch", "peer_torch", "Torch", mode, threads) for mode in ("eager", "compile")
    ]
    entries += [Entry(f"jax {mode}", "JAX", "peer_jax", "Jax", mode, threads) for mode in ("jit", "scan")]
    if threads > 1:  # small nets are faster so; PyTorch's are not
        entries.append(Entry("jax scan, 1 core", "JAX", "peer_jax", "Jax", "scan", 1))
    found = []
    for entry in entries:
        package = entry.name.split()[0]
        if names and package not in names:
            continue
        if package in PEERS and not util.find_spec(package):
            say(f"Left out: {entry.name}, which is not installed; {PEERS[package]}")
            continue
        if package in ours and (fault := backends.find(package).fault()):
            say(f"Left out: {package}: {fault.reason}; {fault.fix}")
            continue
        found.append(entry)
    return found


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(threads: int) -> dict[str, Any]:
    """Where and with what this runs."""
    processor = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        processor = next(
            (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), processor
        )
    packages = ("numpy", "numba", "cupy", "torch", "jax", "jaxlib")
    sold_as = metadata.packages_distributions()  # cupy comes as cupy-cuda12x or cupy-cuda13x
    versions = {name: metadata.version(sold_as[name][0]) for name in packages if name in sold_as}
    return {
        "processor": processor, "cores": cores(), "threads": threads, "python": platform.python_version(),
        "versions": versions, "date": datetime.datetime.now().isoformat(" ", "minutes"),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }  # fmt: skip


def processor_seconds() -> float | None:
    """Used by everything on the machine, and by its host in its place; None where that is not told."""
    if not os.path.exists("/proc/stat"):
        return None
    user, nice, system, _, _, *rest = map(int, open("/proc/stat").readline().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def say(line: str) -> None:
    click.echo(line, err=True)


# Measuring ------------------------------------------------------------------------------------------------------------


class Benchmark:
    """What all measurements share.

    family : of families.py. seconds : of one repetition. bar : told of every contestant that is done with something
    """

    def __init__(self, family: str, entries: list[Entry], threads: int, seconds: float, repetitions: int, bar):
        self.family, self.entries, self.threads = family, entries, threads
        self.seconds, self.repetitions, self.bar = seconds, repetitions, bar

    def start(self, stack: ExitStack, *left_out: str) -> list[Worker]:
        return [stack.enter_context(Worker(entry)) for entry in self.entries if entry.name not in left_out]

    def build(self, workers: list[Worker], problem: Problem) -> dict[str, tuple[Worker, float]]:
        """Workers and seconds of set-up by name, without those that fail here. Raises click.ClickException if all
        do."""
        ready = {}
        for worker in workers:
            try:
                ready[worker.entry.name] = worker, worker.build(problem)
            except Exception as fault:  # of any kind: most of the libraries are not ours
                reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
                say(f"Left out: {worker.entry.name} at {problem.size}: {reason}")
            self.bar.update(1)
        if not ready:
            raise click.ClickException(f"nothing works here at {problem.size}")
        return ready

    def steps(self, size: Size) -> dict[str, Any]:
        """Checks, then times the training step of all contestants, and the machine's sgemm before and after."""
        problem = make_problem(size, self.family)
        with ExitStack() as stack:
            gemms = [
                stack.enter_context(Worker(Entry(f"sgemm {k}", "", "contestants", "Sgemm", str(k), k)))
                for k in sorted({1, self.threads})
            ]
            for gemm in gemms:
                gemm.build(None)
            ready = self.build(self.start(stack), problem)
            workers = {name: worker for name, (worker, _) in ready.items()}
            agree(problem, workers)
            rates = [[gemm.call("best", self.seconds / 2)[1] for gemm in gemms]]
            times, others = self.time(workers, self.seconds, self.repetitions)
            rates.append([gemm.call("best", self.seconds / 2)[1] for gemm in gemms])
        found = {name: table.figures(problem, setup, times[name]) for name, (_, setup) in ready.items()}
        sgemm = {gemm.entry.mode: max(rate) for gemm, rate in zip(gemms, zip(*rates))}
        return {"flop": problem.flop, "sgemm_gflops": sgemm, "others": others, "contestants": found}

    def time(
        self, workers: dict[str, Worker], seconds: float, repetitions: int
    ) -> tuple[dict[str, list[float]], float | None]:
        """Seconds per step of each repetition, by name, and the share of all cores that other work took meanwhile.

        A repetition lasts `seconds`, or one step.
        """
        counts = {}
        for name, worker in workers.items():
            count, elapsed = 1, worker.call("run", 1)[0]
            while elapsed < seconds / 2:  # a guess from a shorter call is too low
                count = max(count + 1, min(10 * count, int(count * seconds / elapsed)))
                elapsed = worker.call("run", count)[0]
            counts[name] = max(1, round(count * seconds / elapsed))
        times: dict[str, list[float]] = {name: [] for name in workers}
        start, before = time.perf_counter(), self.foreign(workers)
        for _ in range(repetitions):
            for name, worker in workers.items():
                time.sleep(CALM)
                times[name].append(worker.call("run", counts[name])[0] / counts[name])
        after, seconds = self.foreign(workers), time.perf_counter() - start
        self.bar.update(len(workers))
        return times, None if after is None else max(0.0, after - before) / (os.cpu_count() * seconds)

    def foreign(self, workers: dict[str, Worker]) -> float | None:
        """Seconds of processor time that others have used."""
        total = processor_seconds()
        return None if total is None else total - time.process_time() - sum(worker.cpu() for worker in workers.values())

    def sampler(self, size: Size, n: int, lengths: list[int]) -> dict[str, dict[str, float]]:
        """Seconds to draw n rows by each length of the chain: the better of two draws, after one that compiles unless
        that takes LONG."""
        problem, found = make_problem(size, self.family), {}
        first: dict[int, tuple[str, np.ndarray]] = {}
        with ExitStack() as stack:
            for name, (worker, _) in self.build(
                self.start(stack, "jax jit"), problem
            ).items():  # whose sampler is that of jax scan
                found[name] = {}
                for K in lengths:
                    took, rows = worker.call("sample", n, K)
                    again = (worker.call("sample", n, K)[0] for _ in range(2 - (took > LONG)))
                    found[name][str(K)] = min(*again, took if took > LONG else math.inf)
                    other, others = first.setdefault(K, (name, rows))
                    if rows is not others and not (far := problem.family.apart(rows, others)) < MOST_APART:
                        raise click.ClickException(
                            f"{name} and {other} draw different rows by {K} steps: a moment is {far:.0f} sigma off"
                        )
                self.bar.update(1)
        return found

    def scaling(self, sizes: dict[str, str]) -> dict[str, dict[str, float]]:
        """us per step by contestant and point. Without compiled PyTorch, which at ten seconds a point would take
        minutes."""
        found: dict[str, dict[str, float]] = {}
        with ExitStack() as stack:
            workers = self.start(stack, "torch compile", "jax jit")
            for point, size in sizes.items():
                built = self.build(workers, make_problem(Size.parse(size), self.family))
                ready = {name: worker for name, (worker, _) in built.items()}
                for name, seconds in self.time(ready, self.seconds / 2, 3)[0].items():
                    found.setdefault(name, {})[point] = 1e6 * float(np.median(seconds))
        return found


def agree(problem: Problem, workers: dict[str, Worker]) -> None:
    """Raises click.ClickException unless every contestant finds the definition's loss and gradient on one batch.

    Back ends of this project draw the same noise and may have a fused step of their own: after CHECKED steps they must
    stand at the same weights.
    """
    definition = Ours(problem, "numpy", 1, np.float64)
    x0, t = definition.training.batch(1)
    x_t = problem.family.noisy(problem.chain, x0, t, np.random.default_rng(0))
    loss, grads = definition.loss_and_grads(x0, x_t, t)
    definition.run(CHECKED)
    moved = {name: value - definition.start[name] for name, value in definition.weights().items()}
    for name, worker in workers.items():
        _, (its_loss, its_grads) = worker.call("loss_and_grads", x0, x_t, t)
        off = {"loss": abs(its_loss / loss - 1) / TOLERANCE, "gradient": _error(its_grads, grads) / TOLERANCE}
        if not worker.entry.owner:
            worker.call("run", CHECKED - 1)  # the first was part of the set-up
            its_moved = {part: value - definition.start[part] for part, value in worker.call("weights")[1].items()}
            off[f"change in {CHECKED} steps"] = _error(its_moved, moved) / TOLERANCE_MOVED
        for what, error in off.items():
            if not error < 1:
                limit = f"{error:.1f} times as far from the float64 definition's as rounding explains"
                raise click.ClickException(f"{name} at {problem.size}: its {what} is {limit}; nothing was timed")


def _error(found: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> float:
    """Distance of all arrays together, in units of the true ones' length."""
    return (
        sum(((found[name] - value) ** 2).sum() for name, value in true.items())
        / sum((value**2).sum() for value in true.values())
    ) ** 0.5


# The command ----------------------------------------------------------------------------------------------------------


class Sizes(click.ParamType):
    """A list of sizes with commas between them."""

    name = "sizes"

    def convert(self, value, param, ctx):
        try:
            return [Size.parse(part) for part in value.split(",")]
        except ValueError as fault:
            self.fail(str(fault), param, ctx)


class Names(click.ParamType):
    """A list of names with commas between them, out of `known` if that is given."""

    name = "names"

    def __init__(self, known: tuple[str, ...] = ()):
        self.known = known

    def convert(self, value, param, ctx):
        names = value.split(",") if isinstance(value, str) else value
        if unknown := [name for name in names if self.known and name not in self.known]:
            self.fail(f"{', '.join(unknown)}: there is {', '.join(self.known)}", param, ctx)
        return names


@click.command()
@click.option(
    "--family", type=click.Choice(tuple(FAMILIES)), default="bernoulli", show_default=True, help="What is diffused."
)
@click.option(
    "--sizes",
    type=Sizes(),
    multiple=True,
    help="Networks and batches, with commas between them.  "
    f"[default: {'; '.join(f'{name} {kind.sizes}' for name, kind in FAMILIES.items())}]",
)
@click.option(
    "--backends",
    type=Names(),
    help="Back ends and peers, with commas: numpy, numba, cupy, numba-cuda, torch, jax.  [default: all]",
)
@click.option("--parts", type=Names(PARTS), default=",".join(PARTS), show_default=True, help="What to measure.")
@click.option(
    "--threads",
    type=click.IntRange(1, cores()),
    default=min(2, cores()),
    show_default=True,
    help="Threads and cores of each contestant.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.2,
    show_default=True,
    help="Time of one repetition.",
)
@click.option(
    "--repetitions",
    type=click.IntRange(1),
    default=7,
    show_default=True,
    help="Repetitions of a training step's timing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, of all figures, in place of the tables.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of stdout.")
@click.option(
    "--pictures", type=click.Path(file_okay=False, path_type=Path), help="Folder for the picture, as docs/pictures."
)
@click.option("--quick", is_flag=True, help="One size, two short repetitions, a small sampler, no scaling.")
def main(family, sizes, backends, parts, threads, seconds, repetitions, as_json, out, pictures, quick):
    """Time one training step and the sampler on every back end, on PyTorch and on JAX, and print Markdown tables.

    \b
    python benchmarks/run.py --sizes 20-50-50-20@64,784-512x3-784@256 --backends numpy,torch
    """
    from bdiff_np.errors import InputError
    from bdiff_np.runfolder.files import check_folder, write_whole
    from bdiff_np.runfolder.progress import progress

    try:
        if out:
            check_folder(out)
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
    except (InputError, OSError) as fault:
        raise click.UsageError(str(fault)) from None
    start = time.perf_counter()
    lines: list[str] = []

    def say(text: str) -> None:
        """A part of the tables: at once on stdout, unless JSON is asked for or a file."""
        lines.append(text)
        if not as_json and not out:
            click.echo(text)

    kind = FAMILIES[family]
    chosen = [size for part in sizes for size in part] or Sizes().convert(kind.sizes, None, None)
    drawn, n, lengths = Size.parse(kind.sampler), kind.rows, [kind.T, SHORT]
    if quick:
        chosen, parts, seconds = chosen[:1], [p for p in parts if p != "scaling"], min(seconds, 0.02)
        repetitions, n, lengths = 2, 50, [SHORT]
    for name in TUNING:
        os.environ.pop(name, None)
    os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    entries = lineup(backends, threads)
    result: dict[str, Any] = {
        "machine": machine(threads), "family": family, "seconds": seconds, "repetitions": repetitions
    }  # fmt: skip
    say(heading(result["machine"]))
    say(f"Medians of {repetitions} repetitions of {seconds:g} s, taken in turn. {' and '.join(TUNING)} are not set.")
    say(f"Every loss and gradient is within {TOLERANCE:g} of the float64 definition's, or nothing is timed.")
    points = sum(len(sizes) for _, sizes in kind.scaling.values())
    total = len(entries) * 2 * (len(chosen) * ("steps" in parts) + ("sampler" in parts) + points * ("scaling" in parts))
    with progress(total, "benchmark") as bar:
        benchmark = Benchmark(family, entries, threads, seconds, repetitions, bar)
        if "steps" in parts:
            result["steps"] = {}
            for size in chosen:
                found = result["steps"][str(size)] = benchmark.steps(size)
                rates = found["sgemm_gflops"]
                shown = ", ".join(
                    f"{rate:.0f} GFLOP/s on {k} thread{'s' if k != '1' else ''}" for k, rate in rates.items()
                )
                say(f"\n## {size}{kind.title}\n\n{1e-6 * found['flop']:.1f} MFLOP a step; sgemm {shown}.\n")
                say(table.steps_table(found["contestants"], rates[str(threads)]) + "\n")
                say(table.verdict(found["contestants"], entries))
                if found["others"] is not None:
                    warning = (
                        "; these figures are of a busy machine, and threads that wait for one another suffer most"
                        * (found["others"] > QUIET)
                    )
                    say(f"Other work took {found['others']:.0%} of all cores meanwhile{warning}.")
        if "sampler" in parts:
            result["sampler"] = {"rows": n, "seconds": benchmark.sampler(drawn, n, lengths)}
            shown = table.sampler_table(result["sampler"]["seconds"], n, lengths)
            say(f"\n## Sampler, {drawn}{kind.title}\n\n{shown}\n")
            for K in lengths:
                say(
                    f"{K} steps, the better of two draws: "
                    f"{table.verdict(result['sampler']['seconds'], entries, str(K))}"
                )
        if "scaling" in parts:
            result["scaling"] = {what: benchmark.scaling(sizes) for what, (_, sizes) in kind.scaling.items()}
            for what, curves in result["scaling"].items():
                say(f"\n## Against {kind.scaling[what][0]}\n\n{table.scaling_table(curves, what)}")
    result["took_s"] = time.perf_counter() - start
    say(f"\nAll in {result['took_s']:.0f} s.")
    text = json.dumps(result, indent=1) if as_json else "\n".join(lines)
    if out:
        write_whole(out, f"{text}\n".encode())
    elif as_json:
        click.echo(text)
    if pictures and "scaling" in result:
        table.picture(
            pictures / "speed.png", [(kind.scaling[what][0], result["scaling"][what]) for what in ("width", "batch")]
        )


def heading(m: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    load = "" if m["load_average"] is None else f", load average {m['load_average'][0]:.2f} at the start"
    return (
        f"{m['processor']}, {m['cores']} cores, {m['threads']} threads each; Python {m['python']}, {versions}; "
        f"{m['date']}{load}."
    )


if __name__ == "__main__":
    main()
