"""Rung 4 of the last rung: benchmarks/gpu_check.py runs on the stand-in, small, so that it will run where there is a
GPU."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import gpu_check  # noqa: E402
import gpu_kernels  # noqa: E402
import gpu_timings  # noqa: E402


@pytest.fixture
def small(monkeypatch):
    """Sizes that the CPU takes no time for."""
    for name, value in {"B": 40, "D": 24, "H": 36, "P": 5000, "N": 130}.items():
        monkeypatch.setattr(gpu_kernels, name, value)
    monkeypatch.setattr(gpu_timings, "MILLISECONDS", 0.0)
    monkeypatch.setattr(gpu_timings, "HELD", 2)


def test_every_kernel_is_launched_and_has_a_bound(card, small):
    """All that can be launched on its own, once, by its own name; the bounds know each, and each kernel that is
    compiled."""
    from gpu import compiled

    bounds = {work.kernel for work in gpu_kernels.works()}
    assert bounds == {k.name for k in compiled.KERNELS}
    launches = gpu_kernels.launches()
    # the last is launched by layer_norm_backward
    assert set(launches) == bounds - {"take", "walk_back", "layer_norm_sums<float>"}
    for name, launch in launches.items():
        if not card.real:
            card.stand_in.clear()
        launch()
        if not card.real:
            assert card.stand_in.count("launch", name) == 1, name
    for work in gpu_kernels.works():
        seconds, bound = work.least()
        assert seconds > 0 and bound in ("bytes", "operations", "draws")


def test_timings_become_a_table(card, small):
    lines = list(gpu_timings.kernels(1))
    assert len(lines) == 2 + len(gpu_kernels.launches())
    assert all(re.match(r"\| `[\w<>, ]+` \| [\d,]+ [\w-]+s \| [\d.e+]+ us \|", line) for line in lines[2:])


def test_a_difference_between_card_and_cpu_is_found():
    """One bit of noise, one KL a thousandth off, weights a hundredth off, an array that is missing: each is named."""
    generator = np.random.default_rng(0)
    bits, kl, weights = (
        generator.integers(0, 2, (50, 9)).astype(np.uint8),
        generator.random(50).astype(np.float32),
        generator.random(99),
    )
    cpu = {"one x0 q_sample": bits, "one x0 kl": kl, "FusedSteps plain params": weights, "rows": np.tile(bits, (50, 1))}
    assert gpu_check.compare(cpu, {name: array.copy() for name, array in cpu.items()})[0] == []
    for name, change in (("one x0 q_sample", 1), ("one x0 kl", 1e-3), ("FusedSteps plain params", 1e-2)):
        card = {key: array.copy() for key, array in cpu.items()}
        if card[name].dtype == np.uint8:
            card[name][3, 4] ^= change
        else:
            card[name] *= 1 + change
        assert gpu_check.compare(card, cpu)[0] == [name]
    assert gpu_check.compare({"rows": cpu["rows"]}, cpu)[0] == sorted(set(cpu) - {"rows"})


def test_the_command_writes_a_dated_log(card, small, tmp_path, monkeypatch):
    """Heading, parts, verdict; exit code 1 where a part fails, and the others are run all the same."""
    monkeypatch.setattr(gpu_check, "_tests", lambda log, quick: log.verdict(False, "a test failed"))
    found = CliRunner().invoke(gpu_check.main, ["--parts", "tests,kernels", "--quick", "--out", str(tmp_path / "logs")])
    (path,) = (tmp_path / "logs").iterdir()
    text = path.read_text()
    assert found.exit_code == 1 and re.match(r"\d{4}-\d\d-\d\d_\d{4}_[\w-]+\.md", path.name)
    assert "RED: a test failed" in text and "| `adamw<float>` |" in text and "NOT all of it is green" in text
    assert text.startswith("# ") and "cupy        works" in text


def test_what_is_not_measured_is_said(card, small, tmp_path, monkeypatch):
    """A back end of ours that fails makes the log red; another library's absence does not; both reasons are in the
    file."""

    class Broken:
        def __init__(self, entry):
            raise RuntimeError(f"no {entry.name} here\nmore")

    monkeypatch.setattr(gpu_timings, "Worker", Broken)
    monkeypatch.setattr(gpu_timings, "BATCHES", (64,))
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None)

    def log(*parts):
        found = CliRunner().invoke(
            gpu_check.main, ["--parts", ",".join(parts), "--quick", "--out", str(tmp_path / parts[0])]
        )
        return found.exit_code, next((tmp_path / parts[0]).iterdir()).read_text()

    code, text = log("steps")
    assert (
        code == 1
        and "RED: failed: cupy at 20-50-50-20@64: no cupy here\n" in text
        and "not run: torch eager at " in text
    )
    monkeypatch.setattr(gpu_timings, "CONTESTANTS", [entry for entry in gpu_timings.CONTESTANTS if entry.owner])
    code, text = log("samplers", "sanitizer")
    assert (
        code == 0
        and "All that was run is green" in text
        and "not run: sanitizer: compute-sanitizer is not installed" in text
    )
    assert re.search(r"\d+ not run, the first: torch eager at ", text)


def test_what_a_part_needs_is_said_first(card, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check.shutil, "which", lambda name: None)
    found = CliRunner().invoke(gpu_check.main, ["--parts", "parity", "--out", str(tmp_path / "logs")])
    assert found.exit_code == 2 and "--parts parity needs g++" in found.output and not (tmp_path / "logs").exists()


def test_without_a_gpu(monkeypatch, tmp_path):
    """One sentence, exit code 2, no file."""
    from bdiff_np.backends import gpu

    monkeypatch.setattr(gpu, "driver", lambda: gpu.Driver(None, (), "there is no NVIDIA driver on this machine"))
    found = CliRunner().invoke(gpu_check.main, ["--out", str(tmp_path / "logs")])
    assert found.exit_code == 2 and "no GPU to check: " in found.output and not (tmp_path / "logs").exists()
