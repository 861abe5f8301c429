"""A checkpoint: one safetensors file that holds a training completely, written whole and checked when read.

Tensors: params/NAME and ema/NAME (the averaged weights, which samples are drawn with), m and v (Adam's moments, flat),
and what the family keeps of its process (Family.state). Beside them one JSON text: format, step, epoch, the
configuration, the number of elements, the network's file, a checksum. No code and no pickle.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import check_readable, check_regular, write_own

KEY, FORMAT = "bdiff_np", 2
READABLE = (1, FORMAT)  # 1: the same, of a training whose random words followed another rule (saving.restore)
Number = Annotated[int, Field(ge=0, lt=2**53)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ModelText(BaseModel):
    """What the JSON text says of a model."""

    model_config = ConfigDict(strict=True)
    D: Annotated[int, Field(ge=1, lt=2**31)]
    net: str
    config: dict[str, dict[str, Any]]
    form: dict[str, Any] = {}  # of the training rows (Data.form, Data.check_form)


class TrainingText(ModelText):
    """What it says of a training beside: all that `saving.restore` reads."""

    step: Number
    epoch: Number
    data: list[Number]  # fingerprints
    loss_sum: float
    loss_count: Number
    seconds: Seconds
    wall_seconds: Seconds
    best: Annotated[tuple[float, Number], Field(strict=False)] | None
    grad_norm: float
    backend: str = "numpy"
    later: str = ""  # the back end that was being set up
    backends: list[Annotated[tuple[Number, str], Field(strict=False)]] = []  # first step and name of each


def checksum(tensors: dict[str, np.ndarray], meta: dict) -> int:
    """CRC-32 over the description, and names, shapes and bytes of the tensors in the order of the names."""
    crc = zlib.crc32(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        crc = zlib.crc32(f"{name}{tensors[name].dtype}{tensors[name].shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(tensors[name]).tobytes(), crc)
    return crc


def write(path: Path, tensors: dict[str, np.ndarray], meta: dict) -> None:
    """Writes the file whole or not at all; the same content gives the same bytes."""
    from safetensors.numpy import save

    # safetensors stores strided arrays wrongly, silently; and ascontiguousarray would make a vector of a number
    tensors = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    meta = {**meta, "format": FORMAT}
    meta["crc32"] = checksum(tensors, meta)
    # One metadata key: several come out in another order at each save.
    write_own(path, save(tensors, metadata={KEY: json.dumps(meta, sort_keys=True)}))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors and the JSON text. Raises InputError for a file that is missing, foreign, damaged or of a newer
    format."""
    from safetensors import SafetensorError, safe_open

    check_readable(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint")
    check_regular(path)
    try:
        path.open("rb").close()
    except OSError as fault:
        raise InputError(f"{path}: cannot be read: {fault.strerror or fault}; allow reading it") from None
    try:
        with safe_open(str(path), "np") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError, TypeError) as fault:
        raise InputError(
            f"{path}: damaged, or not a checkpoint ({fault}); use another checkpoint of the same run"
        ) from None
    if text is None:
        raise InputError(f"{path}: a safetensors file, but not a checkpoint of bdiff_np")
    try:
        meta = json.loads(text)
        if meta["format"] not in READABLE:
            raise InputError(
                f"{path}: has format {meta['format']}, this version reads {READABLE[0]} to {FORMAT}; use the version "
                "of bdiff_np that wrote it"
            )
        if meta.pop("crc32") != checksum(tensors, meta):
            raise InputError(f"{path}: damaged (its checksum differs); use another checkpoint of the same run")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):  # no JSON, lists too deep, numbers too long
        raise InputError(
            f"{path}: damaged (its description cannot be read); use another checkpoint of the same run"
        ) from None
    return tensors, meta


def load(path: Path, *, training: bool = False) -> tuple[dict[str, np.ndarray], dict]:
    """As `read`, with everything checked that a model needs: which values the JSON text has, and of which types; that
    the weights, moments and states are finite, and the moments of the weights' size.

    training : whether a training must be in it; one that has its losses is a training either way

    Raises InputError for a right checksum with a wrong content too. Whether it fits a network is for `Params.fill`.
    """
    tensors, meta = read(path)
    training = training or "loss_sum" in meta
    fault = _text_fault(meta, training) or _tensor_fault(tensors, training)
    if fault:
        raise InputError(f"{path}: damaged ({fault}); use another checkpoint of the same run")
    return tensors, meta


def _text_fault(meta: dict, training: bool) -> str | None:
    try:
        TrainingText.model_validate(meta)
    except ValidationError as faults:
        for fault in faults.errors():
            field, missing = fault["loc"][0], fault["type"] == "missing"
            if missing and not training and field not in ModelText.model_fields:
                continue
            if missing:
                return f"its description lacks {field}"
            return f"its {'.'.join(map(str, fault['loc']))} is {repr(fault['input'])[:60]}: {fault['msg'].lower()}"
    return None


def _tensor_fault(tensors: dict[str, np.ndarray], training: bool) -> str | None:
    for name, array in tensors.items():
        if not (name in ("m", "v") or name.startswith(("params/", "ema/"))):
            continue  # of the family's own; Family.restore and misfit look at it
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"{name} holds values that are not finite numbers"
        if array.dtype.kind != "f":
            return f"{name} holds {array.dtype}, not numbers with a fraction"
    weights = {name: array.size for name, array in tensors.items() if name.startswith("params/")}
    if not any(name.startswith("ema/") for name in tensors):
        return "it holds no averaged weights"
    size = (sum(weights.values()),)
    for name in ("m", "v"):
        if name in tensors and tensors[name].shape != size:
            return f"{name} has shape {tensors[name].shape}, expected {size}"
        if name not in tensors and training:
            return f"it lacks {name}"
    return None
