"""A checkpoint: one safetensors file that holds a training completely, written whole and checked when read.

Tensors: params/NAME and ema/NAME (the averaged weights, which samples are drawn with), m and v (Adam's moments, flat),
and what the family keeps of its process (Family.state). Beside them one JSON text: format, step, epoch, the
configuration, the number of elements, the network's file, a checksum. No code and no pickle.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from bdiff_np.errors import InputError
from bdiff_np.runfolder.files import write_whole

KEY, FORMAT = "bdiff_np", 1


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
    write_whole(path, save(tensors, metadata={KEY: json.dumps(meta, sort_keys=True)}))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors and the JSON text. Raises InputError for a file that is missing, foreign, damaged or of a newer
    format."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
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
        if meta["format"] != FORMAT:
            raise InputError(
                f"{path}: has format {meta['format']}, this version reads {FORMAT}; use the version of bdiff_np that "
                "wrote it"
            )
        if meta.pop("crc32") != checksum(tensors, meta):
            raise InputError(f"{path}: damaged (its checksum differs); use another checkpoint of the same run")
    except (json.JSONDecodeError, KeyError, TypeError):
        raise InputError(
            f"{path}: damaged (its description cannot be read); use another checkpoint of the same run"
        ) from None
    return tensors, meta
