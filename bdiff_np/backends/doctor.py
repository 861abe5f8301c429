"""What can compute here: each back end, whether it works, why not, and the command that fixes it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from bdiff_np import backends
from bdiff_np.backends import gpu
from bdiff_np.backends.tryout import check
from bdiff_np.errors import InputError, Unavailable


def examine() -> dict:
    """Python, the NVIDIA driver, and each back end: {"available", "reason", "fix", "versions"}; reason and fix are
    None where it works."""
    driver = gpu.driver()
    return {
        "python": platform.python_version(),
        "driver": {"cuda": _dotted(driver.version), "gpus": list(driver.devices), "fault": driver.fault or None},
        "backends": {name: _backend(name) for name in backends.in_order()},
    }


def _backend(name: str) -> dict:
    try:
        backend = backends.find(name)
    except InputError as fault:
        return {"available": False, "reason": str(fault), "fix": "fix the file, or remove it", "versions": {}}
    versions: dict[str, str] = {part: v for part, names in backend.packages.items() if (v := _version(names))}
    reason = fix = None
    try:
        ops = backends.load_ops(name)
        versions |= ops.versions()
        check(ops)
    except Unavailable as fault:
        reason, fix = fault.reason, fault.fix
    except Exception as fault:  # of any kind: it comes from a library, or a driver
        reason = f"it fails: {(str(fault).strip() or type(fault).__name__).splitlines()[0]}"
        fix = backend.reinstall()
    return {"available": reason is None, "reason": reason, "fix": fix, "versions": versions}


def _version(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _dotted(cuda: int | None) -> str | None:
    """13000 as 13.0."""
    return None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}"


def text(examined: dict) -> str:
    """The same for people."""
    driver = examined["driver"]
    gpus = ", ".join(driver["gpus"]) or f"none: {driver['fault']}"
    known = f", driver for CUDA {driver['cuda']}" if driver["cuda"] else ""
    lines = [f"Python      {examined['python']}", f"GPU         {gpus}{known}", ""]
    for name, b in examined["backends"].items():
        versions = ", ".join(f"{part} {v}" for part, v in b["versions"].items())
        lines.append(f"{name:12}{'works' if b['available'] else 'no'}{f'; {versions}' if versions else ''}")
        if not b["available"]:
            lines += [f"{'':12}because {b['reason']}", f"{'':12}fix: {b['fix']}"]
    return "\n".join(lines)
