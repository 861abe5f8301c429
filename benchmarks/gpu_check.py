"""The last rung: on a machine with a GPU, all parity tests on the real thing, compute-sanitizer, then timings; written
down as a dated log.

    python benchmarks/gpu_check.py                         everything, half an hour
    python benchmarks/gpu_check.py --parts tests,kernels   some of it
    python benchmarks/gpu_check.py --quick                 everything, briefly

The log goes to benchmarks/gpu_logs/DATE_CARD.md: commit it. Exit code 0 if all that was run is green, 1 if not, 2 where
there is no GPU.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("tests", "parity", "sanitizer", "kernels", "steps", "samplers")
SUITES = (
    "tests/test_backends.py",
    "tests/test_kernels.py",
    "tests/gpu/test_rung2_kernels.py",
    "tests/gpu/test_rung4_host.py",
)
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
ROUNDING = 2e-4  # relative, of what the card and the stand-in give: exp and log of one are not those of the other
SPREAD = 2e-3  # of weights after ten steps of AdamW


class Parts(click.ParamType):
    name = "parts"

    def convert(self, value, param, ctx):
        asked = tuple(value.split(",")) if isinstance(value, str) else value
        if unknown := set(asked) - set(PARTS):
            self.fail(f"{', '.join(sorted(unknown))}: there is {', '.join(PARTS)}", param, ctx)
        return asked


class Log:
    """What is said on the terminal and kept for the file.

    good : whether nothing failed up to now. skipped : what could not be run, and why
    """

    def __init__(self):
        self.lines, self.skipped, self.good = [], [], True

    def say(self, text: str) -> None:
        click.echo(text)
        self.lines.append(text)

    def skip(self, what: str) -> None:
        self.say(f"not run: {what}")
        self.skipped.append(what)

    def verdict(self, good: bool, text: str) -> None:
        self.good &= good
        self.say(f"{'GREEN' if good else 'RED'}: {text}")


@click.command()
@click.option(
    "--parts", type=Parts(), default=",".join(PARTS), show_default=True, help="What to run, with commas between."
)
@click.option("--quick", is_flag=True, help="Few repetitions, two batches: to see that all of it runs.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "benchmarks" / "gpu_logs",
    help="Folder of the log.",
)
def main(parts: tuple[str, ...], quick: bool, out: Path) -> None:
    """Checks and times the GPU back ends on this machine's GPU, and writes a dated log.

    \b
    python benchmarks/gpu_check.py --parts tests,parity
    """
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from bdiff_np import backends
    from bdiff_np.backends import doctor
    from bdiff_np.runfolder.files import write_whole

    missing = backends.find("cupy").fault()
    if missing is not None:
        click.echo(f"no GPU to check: {missing.reason}; {missing.fix}", err=True)
        sys.exit(2)
    for part, there, what in (
        ("tests", find_spec("pytest"), "pytest, of the extra test"),
        ("parity", shutil.which("g++"), "g++"),
    ):
        if part in parts and not there:
            click.echo(f"--parts {part} needs {what}; install it, or name the other parts", err=True)
            sys.exit(2)
    log, now = Log(), datetime.datetime.now()
    found = doctor.examine()
    card = found["driver"]["gpus"][0]
    command = " ".join(["python benchmarks/gpu_check.py", *sys.argv[1:]])
    log.say(f"# {card}, {now:%Y-%m-%d %H:%M}\n\n```\n{doctor.text(found)}\n```\n\n{_clocks()}`{command}`")
    steps = {
        "tests": _tests,
        "parity": _parity,
        "sanitizer": _sanitizer,
        "kernels": _kernels,
        "steps": _steps,
        "samplers": _samplers,
    }
    for part in parts:
        log.say(f"\n## {part}\n")
        try:
            steps[part](log, quick)
        except Exception as fault:  # of any kind: the other parts are worth having
            log.verdict(False, f"{type(fault).__name__}: {fault}")
    log.say(
        f"\n{'All that was run is green.' if log.good else 'NOT all of it is green.'} "
        f"{(datetime.datetime.now() - now).seconds} s."
    )
    if log.skipped:
        log.say(f"{len(log.skipped)} not run, the first: {log.skipped[0]}")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{now:%Y-%m-%d_%H%M}_{re.sub(r'[^A-Za-z0-9]+', '-', card).strip('-')}.md"
    write_whole(path, ("\n".join(log.lines) + "\n").encode())
    click.echo(f"\nwritten to {path}", err=True)
    sys.exit(0 if log.good else 1)


def _clocks() -> str:
    """What nvidia-smi says of the card's clocks and power, if it is there."""
    if shutil.which("nvidia-smi") is None:
        return ""
    wanted = "name,driver_version,clocks.max.sm,clocks.max.mem,power.limit,memory.total"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={wanted}", "--format=csv,noheader"], capture_output=True, text=True
    )
    return f"nvidia-smi, {wanted}: {done.stdout.strip()}\n\n" if done.returncode == 0 else ""


def _tests(log: Log, quick: bool) -> None:
    """The parity tests, on every back end that runs here; on the real CuPy, since there is a GPU."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", *SUITES], cwd=ROOT, capture_output=True, text=True)
    log.say("```\n" + "\n".join((done.stdout.strip() or done.stderr.strip()).splitlines()[-40:]) + "\n```")
    log.verdict(done.returncode == 0, f"pytest {' '.join(SUITES)}")


def _parity(log: Log, quick: bool) -> None:
    """The card against the same kernels on the CPU: integers bit for bit, floats to rounding."""
    with tempfile.TemporaryDirectory() as folder:
        arrays = []
        for name, options in (("card", ()), ("stand-in", ("--stand-in",))):
            path = Path(folder) / f"{name}.npz"
            done = subprocess.run(
                [sys.executable, "tests/gpu/fingerprint.py", str(path), *options],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                log.verdict(False, f"fingerprint of the {name}: {done.stderr.strip().splitlines()[-1]}")
                return
            arrays.append(dict(np.load(path)))
    different, furthest = compare(*arrays)
    log.say("largest relative differences: " + ", ".join(f"{name} {distance:.1e}" for name, distance in furthest))
    log.verdict(
        not different,
        f"differ from the CPU's: {', '.join(different)}"
        if different
        else f"{len(arrays[0])} arrays agree with the CPU's",
    )


def compare(card: dict[str, np.ndarray], cpu: dict[str, np.ndarray]) -> tuple[list[str], list[tuple[str, float]]]:
    """Names of arrays that differ by more than they may, and the five largest relative distances."""
    different, distances = sorted(set(card) ^ set(cpu)), {}
    for name in set(card) & set(cpu):
        a, b = card[name], cpu[name]
        if a.dtype.kind in "iu":
            # Noise and prior are integers throughout; rows of a model flip where a float is just above a word, once in
            # ten million.
            share = float((a != b).mean())
            if share > (1e-4 if name == "rows" else 0):
                different.append(name)
            continue
        distances[name] = float(np.linalg.norm(a.astype(np.float64) - b) / max(float(np.linalg.norm(b)), 1e-30))
        if not distances[name] < (ROUNDING if " x" in name else SPREAD):
            different.append(name)
    return different, sorted(distances.items(), key=lambda item: -item[1])[:5]


def _sanitizer(log: Log, quick: bool) -> None:
    """NVIDIA's own tool over every kernel, small: tests/gpu/watched.py."""
    if shutil.which("compute-sanitizer") is None:
        log.skip("sanitizer: compute-sanitizer is not installed (it comes with CUDA's toolkit)")
        return
    for tool in TOOLS[: 1 if quick else None]:
        command = [
            "compute-sanitizer",
            "--tool",
            tool,
            "--error-exitcode",
            "99",
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/gpu/watched.py",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        summary = [
            line for line in done.stdout.splitlines() if "SUMMARY" in line or " passed" in line or " failed" in line
        ]
        log.verdict(done.returncode == 0, f"{tool}: {'; '.join(summary)}")


def _kernels(log: Log, quick: bool) -> None:
    import gpu_timings

    log.say(
        "Medians, least and most of repetitions, by CUDA events; bounds are those of an H100 "
        "(benchmarks/gpu_kernels.py).\n"
    )
    _say_all(log, gpu_timings.kernels(3 if quick else gpu_timings.REPETITIONS))


def _steps(log: Log, quick: bool) -> None:
    import gpu_timings

    batches = gpu_timings.BATCHES[:2] if quick else gpu_timings.BATCHES
    for title, net, most in (
        ("20-50-50-20", gpu_timings.PAPER, batches),
        ("784-512x3-784", gpu_timings.WIDE, batches[:3]),
    ):
        log.say(f"\n### Training step, {title}\n\nus a step, wall clock, medians; how many times as long as cupy.\n")
        _say_all(log, gpu_timings.steps(net, most, 3 if quick else gpu_timings.REPETITIONS))


def _samplers(log: Log, quick: bool) -> None:
    import gpu_timings

    log.say("### Sampler, 20-50-50-20")
    _say_all(
        log,
        gpu_timings.samplers(
            gpu_timings.PAPER, gpu_timings.BATCHES[:1] if quick else gpu_timings.BATCHES, 1 if quick else 3
        ),
    )


def _say_all(log: Log, lines: Iterator[str]) -> None:
    """Lines of a table, and what was not measured: a failure if it is ours."""
    import gpu_timings

    for line in lines:
        if line.startswith(gpu_timings.FAILED):
            log.verdict(False, line)
        elif line.startswith(gpu_timings.LEFT_OUT):
            log.skip(line.removeprefix(gpu_timings.LEFT_OUT))
        else:
            log.say(line)


if __name__ == "__main__":
    main()
