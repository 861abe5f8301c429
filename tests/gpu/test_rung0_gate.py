"""Rung 0: without a GPU the GPU back ends say so in one sentence with a fix, commands leave with exit code 2, auto and
the doctor tell."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import types
from importlib.util import find_spec

import pytest
from tiny import invoke, make_run, model

from bdiff_np import backends
from bdiff_np.backends import auto, doctor, gpu
from bdiff_np.errors import Unavailable
from bdiff_np.kernels.shared import compiled
from bdiff_np.model import load_ops
from bdiff_np.runfolder import conclude
from bdiff_np.show import pictures

MODULES = [backends.find(name).module for name in ("cupy", "numba-cuda")]

NONE = gpu.Driver(None, (), "there is no NVIDIA driver on this machine")
NO_GPU = gpu.Driver(13000, (), "the NVIDIA driver finds no GPU")
WEAK = gpu.Driver(13000, ("an old card",), "", 61)
VOLTA = gpu.Driver(13000, ("an older card",), "", 70)
HERE = {"12": gpu.Driver(12080, ("a card",), ""), "13": gpu.Driver(13000, ("a card", "another"), "")}
OLD = gpu.Driver(11080, ("a card",), "")
both = pytest.mark.parametrize("backend", ["cupy", "numba-cuda"])


@pytest.fixture
def machine(monkeypatch):
    """machine(driver, *packages, wheels=()): a machine with this driver, no packages of GPU back ends but these, and
    these wheels of CuPy."""

    def make(driver, *packages, wheels=()):
        monkeypatch.setattr(gpu, "driver", lambda: driver)
        monkeypatch.setattr(gpu, "_installed", lambda wheel: wheel in wheels)
        asked = gpu.find_spec
        known = set(MODULES)
        monkeypatch.setattr(gpu, "find_spec", lambda name: (name in packages or None) if name in known else asked(name))

    return make


@both
def test_not_installed(machine, backend):
    """The exact pip line, with the extra that the driver asks for; where there is no GPU either, that is said too, and
    what works here."""
    for version, driver in HERE.items():
        machine(driver)
        fault = backends.find(backend).fault()
        assert (
            fault.fix.endswith(f'pip install -e ".[cuda{version}]"') and fault.reason == f"{backend} is not installed"
        )
        assert str(fault) == f"--backend {backend}: {fault.reason}; {fault.fix}"
    machine(NONE)
    fault = backends.find(backend).fault()
    assert "is not installed, and there is no NVIDIA driver" in fault.reason
    assert 'pip install -e ".[cuda13]"' in fault.fix and "the back end numba" in fault.fix


@both
def test_installed_where_there_is_no_gpu(machine, backend):
    for driver in (NONE, NO_GPU):
        machine(driver, *MODULES)
        fault = backends.find(backend).fault()
        assert fault.reason == driver.fault and "the back end numba" in fault.fix


@both
def test_a_driver_that_is_too_old(machine, backend):
    machine(OLD, *MODULES)
    fault = backends.find(backend).fault()
    assert fault.reason == "the driver is for CUDA 11.8" and "CUDA 12" in fault.fix


@both
def test_a_card_that_is_too_old(machine, backend):
    """Below compute capability 7.0 the kernels do not compile; a card that CUDA 13 has left behind is told of CUDA 12,
    whatever its driver."""
    machine(WEAK, *MODULES)
    fault = backends.find(backend).fault()
    assert (
        fault.reason == "an old card has compute capability 6.1, and 7.0 is the least"
        and "the back end numba" in fault.fix
    )
    machine(VOLTA)
    assert backends.find(backend).fault().fix.endswith('pip install -e ".[cuda12]"')


@pytest.mark.parametrize(
    "backend, version, wheels, line",
    [
        ("cupy", "12", (), 'pip install -e ".[cuda12]"'),
        ("cupy", "12", ("cupy-cuda12x",), 'pip uninstall -y cupy-cuda12x && pip install -e ".[cuda12]"'),
        (
            "cupy",
            "13",
            ("cupy-cuda12x", "cupy-cuda13x"),
            'pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install -e ".[cuda13]"',
        ),
        (
            "numba-cuda",
            "13",
            ("numba-cuda", "cupy-cuda12x"),
            'pip uninstall -y numba-cuda && pip install -e ".[cuda13]"',
        ),
    ],
)
def test_an_installation_is_mended(machine, monkeypatch, backend, version, wheels, line):
    """Two wheels of CuPy write into one folder: the wrong one goes before the right one comes."""
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    machine(HERE[version], *MODULES, wheels=wheels)
    assert backends.find(backend).reinstall() == line


def test_the_line_names_the_python_that_runs(machine, monkeypatch, tmp_path):
    """Where no environment is active, or another one, pip is that of this Python; where this is no clone, the package
    goes by its name."""
    machine(HERE["13"])
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setattr(sys, "executable", str(gpu.Path.cwd() / "an env" / "python"))
    assert gpu.install() == "'an env/python' -m pip install -e \".[cuda13]\""
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "bdiff_np" / "backends" / "gpu.py"))
    assert gpu.install() == "'an env/python' -m pip install \"bdiff_np[cuda13]\""


@both
def test_a_machine_that_has_all(machine, backend):
    for driver in HERE.values():
        machine(driver, *MODULES)
        assert backends.find(backend).fault() is None


@both
def test_a_library_that_cannot_be_imported(machine, backend, monkeypatch):
    """A broken installation is a sentence too, with the line that mends it."""
    machine(HERE["12"], *MODULES)
    monkeypatch.setattr(
        gpu,
        "import_module",
        lambda name: (_ for _ in ()).throw(OSError("libnvrtc.so.12: cannot open shared object file")),
    )
    with pytest.raises(Unavailable, match=r"cannot be imported \(libnvrtc.*\); .*pip install -e \"\.\[cuda12\]\""):
        backends.find(backend).require()


def test_hidden_cards_are_said(machine, monkeypatch):
    machine(NO_GPU, *MODULES)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert backends.find("cupy").fault().fix.startswith("unset CUDA_VISIBLE_DEVICES")


def test_it_comes_back_whole_from_another_process():
    fault = pickle.loads(pickle.dumps(Unavailable("cupy", "a reason", "a fix")))
    assert (fault.backend, fault.reason, fault.fix, str(fault)) == (
        "cupy",
        "a reason",
        "a fix",
        "--backend cupy: a reason; a fix",
    )


def test_the_driver_is_asked(monkeypatch):
    """Version and names come from the driver's own library; what it lacks is a reason and no exception."""

    class Library:
        def __init__(self, version=13010, count=2, init=0):
            self.version, self.count, self.init = version, count, init

        def cuDriverGetVersion(self, out):
            out._obj.value = self.version

        def cuInit(self, flags):
            return self.init

        def cuDeviceGetCount(self, out):
            out._obj.value = self.count
            return 0

        def cuDeviceGetName(self, name, size, k):
            name.value = f"card {k}".encode()

        def cuDeviceGetAttribute(self, out, attribute, k):
            out._obj.value = {gpu.MAJOR: 8, gpu.MINOR: 6}[attribute]

        def cuGetErrorName(self, code, out):
            out._obj.value = b"CUDA_ERROR_NO_DEVICE" if code == 100 else None

    def ask(library):
        monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: library if library else (_ for _ in ()).throw(OSError()))
        return gpu.driver.__wrapped__()

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert ask(Library()) == gpu.Driver(13010, ("card 0", "card 1"), "", 86)
    assert ask(None) == NONE
    none = "the NVIDIA driver finds no GPU"
    assert ask(Library(count=0)).fault == ask(Library(init=7)).fault == none
    assert ask(Library(init=100)) == gpu.Driver(13010, (), f"{none} (CUDA_ERROR_NO_DEVICE)")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ask(Library(init=100)).fault == f"{none} (CUDA_ERROR_NO_DEVICE, CUDA_VISIBLE_DEVICES is '')"


@pytest.mark.skipif(find_spec("cupy") is None, reason='CuPy is not installed: pip install "bdiff_np[gpu-check]"')
def test_the_real_cupy_imports_without_a_gpu():
    """And says so: what the gate relies on. In a process of its own, where no stand-in was."""
    code = "import cupy; print(cupy.__version__, cupy.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and re.match(r"\d+\.\d+\.\d+ (True|False)$", done.stdout.strip()), done.stderr


# Commands
# ----------------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("command", ["train", "sample", "evaluate", "validate"])
def test_commands_say_it_in_one_sentence(machine, tmp_path, backend, command, monkeypatch):
    """Exit code 2, the reason and the fix on stderr, nothing on stdout, nothing left behind."""
    run = make_run(tmp_path / "run", epochs=1, num_val_samples=0)
    if command != "train":
        monkeypatch.setattr(conclude, "EVALUATIONS", 32)
        monkeypatch.setattr(pictures, "draw", lambda *_: None)
        assert invoke("train", run, "--backend", "numpy").exit_code == 0
    machine(NONE)
    before = sorted(run.rglob("*"))
    found = invoke(command, run, "--backend", backend)
    assert found.exit_code == 2 and found.stdout == ""
    assert found.stderr.splitlines()[-1] == str(backends.find(backend).fault()) and len(found.stderr.splitlines()) <= 2
    assert sorted(run.rglob("*")) == before


def test_auto_goes_on_without_a_gpu_and_says_so(machine, tmp_path, monkeypatch):
    """NumPy or Numba takes over; the plan of a training has the words."""
    machine(NONE)
    monkeypatch.setattr(compiled, "is_compiled", lambda _: True)
    run = make_run(tmp_path / "run", epochs=1)
    assert re.search(
        r"back end numpy \(auto: about 0 s on NumPy, .*; no GPU\)", invoke("train", run, "--dry-run").stderr
    )
    assert auto.for_sampling(model(), 10**7, 2000).backend == "numba"


def test_auto_takes_a_gpu_for_much_work(machine, monkeypatch):
    """With growing work numpy, numba, cupy, each where it is expected to end first; one that fails at its import is
    passed over, and why is said."""
    machine(HERE["13"], "cupy")
    monkeypatch.setattr(compiled, "is_compiled", lambda _: True)
    monkeypatch.setattr(gpu.GPUBackend, "load", lambda backend: types.ModuleType(backend.name))
    found = [auto.for_sampling(model(), 2**k, 1000) for k in range(30)]
    answers = [choice.backend for choice in found]
    assert list(dict.fromkeys(answers)) == ["numpy", "numba", "cupy"]
    assert "s on the GPU" in found[-1].reason and "to start the GPU" in found[0].reason

    def fail(backend):
        raise Unavailable(backend.name, "it is broken", "mend it")

    monkeypatch.setattr(gpu.GPUBackend, "load", fail)
    choice = auto.for_sampling(model(), 2**29, 1000)
    assert choice.backend == "numba" and "it is broken; mend it" in choice.reason


def test_auto_leaves_other_networks_on_the_host(machine):
    """Residual blocks and dropout on Numba, which takes them whole; what has no compiled form on NumPy."""
    machine(HERE["13"], "cupy")
    choice = auto.for_sampling(model(residual=True), 10**8, 2000)
    assert choice.backend == "numba" and "operation by operation" in choice.reason
    assert auto.for_sampling(model(time="bumps"), 10**8, 2000).backend == "numpy"


# The doctor
# ----------------------------------------------------------------------------------------------------------------------


def test_doctor_where_there_is_no_gpu(machine):
    """Each back end with its state; the same as JSON; exit code 0."""
    machine(NONE)
    found = invoke("doctor")
    assert found.exit_code == 0 and found.stderr == ""
    lines = found.stdout.splitlines()
    assert lines[1] == "GPU         none: there is no NVIDIA driver on this machine"
    assert [line.split(";")[0].split() for line in lines if line[:1].isalpha()][2:] == [
        ["numpy", "works"], ["numba", "works"], ["cupy", "no"], ["numba-cuda", "no"]
    ]  # fmt: skip
    told = json.loads(invoke("doctor", "--json").stdout)
    assert told["driver"] == {"cuda": None, "gpus": [], "fault": NONE.fault}
    for name, state in told["backends"].items():
        assert set(state) == {"available", "reason", "fix", "versions"}
        assert state["available"] == (name in ("numpy", "numba")) == (state["reason"] is None) == (state["fix"] is None)
    assert 'pip install -e ".[cuda13]"' in told["backends"]["cupy"]["fix"]
    assert re.match(r"\d+\.\d+", told["backends"]["numba"]["versions"]["Numba"])


def test_doctor_tries_what_it_finds(machine, monkeypatch):
    """A back end that imports and then fails, or is wrong, does not work; the reason is its own, the fix a line for
    pip."""
    machine(NONE)
    numba = load_ops("numba")

    def break_it(*_):
        raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU\nmore")

    monkeypatch.setattr(numba, "norm", break_it)
    state = doctor.examine()["backends"]["numba"]
    assert state["reason"] == "it fails: CUDA_ERROR_NO_BINARY_FOR_GPU" and not state["available"]
    assert state["fix"].endswith("pip install --force-reinstall numba")
    monkeypatch.setattr(numba, "norm", lambda flat: 4.0)
    assert "a length is 4.0, not 5.09" in doctor.examine()["backends"]["numba"]["reason"]


def test_doctor_on_a_card(card):
    """Where CuPy runs, it works, with the versions of driver, runtime and CuPy."""
    found = doctor.examine()
    state = found["backends"]["cupy"]
    assert state["available"], state
    assert {"CuPy", "CUDA runtime"} <= set(state["versions"]) or not card.real
    assert found["driver"]["cuda"] == "13.0" or card.real
