"""The package as others meet it: what an import loads, where the kernels are, what an installation holds, what the
README promises."""

from __future__ import annotations

import ast
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest
from test_cli import examples, parse  # noqa: F401  (a fixture)

import bdiff_np

ROOT = Path(__file__).parent.parent
HEAVY = [
    "numpy",
    "numba",
    "llvmlite",
    "cupy",
    "matplotlib",
    "pydantic",
    "safetensors",
    "PIL",
    "yaml",
    "tqdm",
    "threadpoolctl",
]
SETUP = {
    keyword.arg: keyword.value
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    for keyword in node.keywords
}


def setup_says(keyword: str):
    return ast.literal_eval(SETUP[keyword])


def python(code: str, *, path: list[Path], cwd: Path) -> str:
    """What code prints in a fresh process that sees `path` and the libraries, but no editable bdiff_np: -S reads no
    .pth files."""
    library = sysconfig.get_paths()["purelib"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, path), library]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=cwd, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tracked() -> list[Path]:
    """All files of the repository, those that are new and not ignored too; skips where there is no repository."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, cwd=ROOT
        )
    except OSError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in os.fsdecode(done.stdout).split("\0") if name and (ROOT / name).is_file()]


# Imports
# ----------------------------------------------------------------------------------------------------------------------


def test_import_loads_only_the_standard_library(tmp_path):
    code = f"import sys, bdiff_np; print(bdiff_np.__version__, [m for m in {HEAVY} if m in sys.modules])"
    assert python(code, path=[ROOT], cwd=tmp_path) == f"{bdiff_np.__version__} []"


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["train", "--help"], ["data", "--help"], ["sample", "-h"]], ids=" ".join
)
def test_help_loads_no_large_library(tmp_path, words):
    """Help comes at once: NumPy, pydantic, matplotlib and the rest wait for a command that computes."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['cli.py', *{words}]\n"
        f"try: runpy.run_path({str(ROOT / 'cli.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: print('exit', end.code)\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert python(code, path=[ROOT], cwd=tmp_path).splitlines()[-2:] == ["exit 0", "[]"]


def test_the_probe_of_imports_sees_them(tmp_path):
    """The two tests above could fail: a command that loads a model does load NumPy and pydantic."""
    code = f"import sys, bdiff_np.model, bdiff_np.config; print([m for m in {HEAVY} if m in sys.modules])"
    assert {"numpy", "pydantic"} <= set(ast.literal_eval(python(code, path=[ROOT], cwd=tmp_path)))


KERNELS = (
    "import sys, bdiff_np.kernels.bernoulli.bernoulli_numpy as k; print(k.__name__, k.__file__, 'kernels' in "
    "sys.modules)"
)


def test_kernels_are_found_in_a_plain_checkout(tmp_path):
    """bdiff_np.kernels is the top-level folder kernels/, which claims no name of its own."""
    file = ROOT / "bdiff_np" / "kernels" / "bernoulli" / "bernoulli_numpy.py"
    assert python(KERNELS, path=[ROOT], cwd=tmp_path) == f"bdiff_np.kernels.bernoulli.bernoulli_numpy {file} False"
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_kernels_are_found_where_there_are_no_symbolic_links(tmp_path):
    """The package registers them itself then, and nothing else of the checkout with them; a link that git wrote as a
    file does no harm."""
    shutil.copytree(ROOT / "bdiff_np", tmp_path / "bdiff_np", ignore=shutil.ignore_patterns("kernels", "__pycache__"))
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bdiff_np" / "kernels").write_text("../kernels")
    file = tmp_path / "kernels" / "bernoulli" / "bernoulli_numpy.py"
    assert python(KERNELS, path=[tmp_path], cwd=tmp_path) == f"bdiff_np.kernels.bernoulli.bernoulli_numpy {file} False"


@pytest.mark.parametrize("name", ["bdiff_np.bdiff_np", "bdiff_np.cli.main", "bdiff_np.tests", "bdiff_np.dev"])
def test_nothing_else_of_the_checkout_is_a_part_of_the_package(tmp_path, name):
    code = (
        f"import importlib.util, bdiff_np\ntry: print(importlib.util.find_spec({name!r}))\nexcept "
        "ModuleNotFoundError: print(None)"
    )
    assert python(code, path=[ROOT], cwd=tmp_path) == "None"


def test_kernels_are_not_taken_from_a_neighbour(tmp_path):
    """An installed package beside somebody else's folder `kernels` does not look into it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "bdiff_np").mkdir()
    (tmp_path / "site" / "bdiff_np" / "__init__.py").write_text((ROOT / "bdiff_np" / "__init__.py").read_text())
    (tmp_path / "site" / "kernels").mkdir()
    code = "import bdiff_np; print(len(bdiff_np.__path__))"
    assert python(code, path=[tmp_path / "site"], cwd=tmp_path) == "1"


# Installation
# ----------------------------------------------------------------------------------------------------------------------


def package_folders() -> set[str]:
    """Of the package and, below kernels/, of its subjects."""
    own = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for p in (ROOT / "bdiff_np").rglob("*.py")
        if "kernels" not in p.parts
    }
    return (
        own
        | {"bdiff_np.kernels"}
        | {f"bdiff_np.kernels.{p.parent.name}" for p in (ROOT / "kernels").glob("*/__init__.py")}
    )


def test_setup_lists_every_package():
    """Each folder with Python files is a package that gets installed, and each listed one exists; kernels/ is mapped,
    not copied."""
    namespace = runpy.run_path(str(ROOT / "setup.py"))
    packages = namespace["PACKAGES"]
    assert set(packages) == package_folders() and len(packages) == len(package_folders())
    assert setup_says("package_dir") == {"bdiff_np": "bdiff_np", "bdiff_np.kernels": "kernels"}
    assert (ROOT / "bdiff_np" / "kernels").resolve() == ROOT / "kernels" and not list((ROOT / "kernels").glob("*.py"))
    for name in package_folders() - {"bdiff_np.kernels"}:
        assert (ROOT.joinpath(*name.split(".")) / "__init__.py").is_file(), name


def test_setup_agrees_with_the_package():
    """One version; the marker of type hints is there; every library that the package imports is asked for, and no
    other; CuPy by both extras."""
    assert setup_says("version") == bdiff_np.__version__ and setup_says("name") == "bdiff_np"
    assert all((ROOT / "bdiff_np" / name).is_file() for name in setup_says("package_data")["bdiff_np"])
    asked = {re.match(r"[\w-]+", text).group() for text in setup_says("install_requires")}
    called = {"pyyaml": "yaml", "pillow": "PIL"}
    files = [*(ROOT / "bdiff_np").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    used = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            used |= {name.partition(".")[0] for name in names}
    used -= {"bdiff_np", *sys.stdlib_module_names}
    assert "cupy" in used and all(
        any(text.startswith("cupy-") for text in setup_says("extras_require")[extra]) for extra in ("cuda12", "cuda13")
    )
    used -= {"cupy"}
    assert {called.get(name, name) for name in asked} == used


def test_console_script_is_a_function():
    (script,) = setup_says("entry_points")["console_scripts"]
    name, module, attribute = re.fullmatch(r"(\w+)=([\w.]+):(\w+)", script).groups()
    assert name == "bdiff" and callable(getattr(importlib.import_module(module), attribute))


def copy_of_the_checkout(folder: Path) -> Path:
    """Building leaves files behind, and would pick up those of an earlier build: so from a clean copy."""
    names = ("bdiff_np", "kernels", "setup.py", "pyproject.toml", "README.md", "LICENSE")
    for file in tracked():
        if not file.parent.is_symlink() and file.relative_to(ROOT).parts[0] in names:
            target = folder / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder


def check_installed(library: Path, tmp_path: Path) -> None:
    """An installation holds every module and py.typed, works without the checkout, and takes the kernels from inside
    itself."""
    wanted = {p.relative_to(ROOT) for p in (ROOT / "bdiff_np").rglob("*.py")} | {Path("bdiff_np/py.typed")}
    wanted |= {
        "bdiff_np" / p.relative_to(ROOT) for p in (ROOT / "kernels").rglob("*.*") if p.suffix in (".py", ".cu", ".cuh")
    }
    have = {p.relative_to(library) for p in (library / "bdiff_np").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {p for p in wanted if p not in have} == set() and not (library / "kernels").exists()
    assert python(KERNELS, path=[library], cwd=tmp_path) == (
        "bdiff_np.kernels.bernoulli.bernoulli_numpy "
        f"{library / 'bdiff_np' / 'kernels' / 'bernoulli' / 'bernoulli_numpy.py'} False"
    )
    code = "import bdiff_np.backends as m, bdiff_np.runfolder.run, bdiff_np.show.report; print(m.names())"
    assert "numpy" in ast.literal_eval(python(code, path=[library], cwd=tmp_path))


def version(distribution: str) -> tuple[int, ...]:
    """Of an installed distribution, () if it is not there. Nothing is imported: setuptools changes distutils when it
    is."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", metadata.version(distribution))[:2])
    except metadata.PackageNotFoundError:
        return ()


@pytest.mark.skipif(not version("setuptools"), reason="setuptools is not installed here")
def test_a_build_holds_everything(tmp_path):
    source = copy_of_the_checkout(tmp_path / "source")
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build",
        "--build-base",
        str(tmp_path / "base"),
        "--build-lib",
        str(tmp_path / "lib"),
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    check_installed(tmp_path / "lib", tmp_path)


def wheels_can_be_made() -> bool:
    """setuptools makes wheels itself from version 70.1 on, before that with the package `wheel`."""
    return bool(version("pip") and (version("setuptools") >= (70, 1) or version("setuptools") and version("wheel")))


@pytest.mark.skipif(not wheels_can_be_made(), reason="pip, setuptools or wheel is not installed here")
def test_pip_installs_everything(tmp_path):
    source = copy_of_the_checkout(tmp_path / "source")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
    ]
    done = subprocess.run(
        [*command, "--target", str(tmp_path / "lib"), "."], cwd=source, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    check_installed(tmp_path / "lib", tmp_path)
    (script,) = (tmp_path / "lib" / "bin").glob("bdiff*")
    assert "bdiff_np.cli" in script.read_text()


# What is written
# ----------------------------------------------------------------------------------------------------------------------


def blocks(text: str, language: str = "") -> list[str]:
    """The fenced blocks of a Markdown text, of one language or of all."""
    found = re.findall(r"^([ \t]*)```[ \t]*(\w*)[^\n]*\n(.*?)^\1```[ \t]*$", text, re.MULTILINE | re.DOTALL)
    return [body for _, name, body in found if language in ("", name)]


README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_shows_the_commands():
    """The commands of a first hour stand in it."""
    shown = {words[0] for block in blocks(README) for words in examples(block)}
    assert {"train", "sample", "evaluate"} <= shown
    assert "python3 dev.py train" in README and "python3 dev.py test" in README


COMMANDS = [
    (page.name, words)
    for page in PAGES
    for block in blocks(page.read_text(encoding="utf-8"))
    for words in examples(block)
]


@pytest.mark.parametrize("page, words", COMMANDS, ids=lambda part: " ".join(part) if isinstance(part, list) else part)
def test_commands_of_the_pages_parse(page, words, parse):  # noqa: F811
    """Every `python cli.py ...` line of a fenced block is a right command line, its values included."""
    result = parse(words)
    assert result.exit_code == 0, result.stderr


def test_runs_named_in_the_pages_are_there_or_made(tmp_path):
    """A run folder in a command is one that is shipped, or the --out of a command on the same page."""
    for page in PAGES:
        lines = [words for name, words in COMMANDS if name == page.name]
        made = {
            words[i + 1]
            for words in lines
            for i, word in enumerate(words[:-1])
            if word == "--out" and words[0] == "data"
        }
        for words in lines:
            if words[0] in ("train", "check-net") and len(words) > 1 and words[1].startswith("runs/"):
                shipped = any(file.is_relative_to(ROOT / words[1]) for file in tracked())
                assert shipped or words[1] in made or words[1] in {"runs/X", "runs/mine"}, (
                    f"{page.name}: {' '.join(words)}"
                )


def test_python_of_the_readme_runs(trained):
    """The example that loads a run works as it stands, with the path of a trained run in place of its own."""
    shown = [block for block in blocks(README, "python") if "bdiff_np.load" in block]
    assert shown
    for block in shown:
        code, count = re.subn(
            r"""bdiff_np\.load\(\s*(["'])[^"']*\1""", lambda _: f"bdiff_np.load({str(trained.run)!r}", block
        )
        assert count == block.count("bdiff_np.load(")
        scope: dict = {}
        exec(compile(code, "README.md", "exec"), scope)
        assert {tuple(v.shape) for v in scope.values() if hasattr(v, "shape")}, "the example leaves no array"


def test_python_api_of_the_docstring_runs(trained):
    """`import bdiff_np` says of itself how to load, sample and score, with these shapes; and so it is."""
    code = "\n".join(line[4:] for line in bdiff_np.__doc__.splitlines() if line.startswith("    "))
    scope: dict = {}
    exec(code.replace('"runs/heartbeat_paper"', repr(str(trained.run))), scope)
    assert scope["rows"].shape == (10, 10) and scope["rows"].dtype == "uint8" and set(scope["rows"].ravel()) <= {0, 1}
    assert scope["bits"].shape == (10,) and (scope["bits"] > 0).all()


# Written in two parts, so that this file does not hold what it looks for.
MACHINE = re.compile(rb"(?<![\w.])/" + rb"(?:work|root|home|Users)/")
TEMPORARY = re.compile(rb"(?<![\w.])/" + rb"tmp/")
HOSTS = re.compile(
    rb"pypi\."
    + rb"org|python"
    + rb"hosted|npmjs\."
    + rb"(?:org|com)|artifact"
    + rb"ory|index-"
    + rb"url|registry\."
    + rb"\w+\.\w+"
)


def test_no_machine_and_no_registry_is_named():
    """No path of one machine, no package registry, in any file of the repository; paths of temporary files only in
    tests."""
    for file in tracked():
        content, name = file.read_bytes(), file.relative_to(ROOT)
        for pattern in (MACHINE, HOSTS, *([] if name.parts[0] == "tests" else [TEMPORARY])):
            match = pattern.search(content)
            assert not match, f"{name}:{content[: match.start()].count(b'%c' % 10) + 1}: {match.group()!r}"


def test_the_search_for_machines_finds_them():
    """Paths and hosts are found wherever they stand, and a relative path of the same words is not."""
    for text in (b"see /" + b"work/main", b'"/' + b"root/x", b"file:///" + b"home/me/"):
        assert MACHINE.search(text), text
    assert TEMPORARY.search(b"(/" + b"tmp/x)") and HOSTS.search(b"https://pypi." + b"org/simple")
    for text in (b"frame" + b"work/main", b"docs/" + b"root/x", b"../work" + b"/x"):
        assert not MACHINE.search(text), text
