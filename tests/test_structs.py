"""Structs that the host hands to a kernel by value: laid out as the compiler of the kernel lays them out, and filled in
without a slip."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_on_cpu import compile, stand_in

from bdiff_np.kernels.shared.cuda_source import layout, source

STRUCTS = [
    ("training.cuh", "Steps", "Steps"), ("training.cuh", "Walk", "Walk"), ("bernoulli.cuh", "Law", "Law<float>"),
    ("bernoulli.cuh", "Law", "Law<double>"),
]  # fmt: skip


@pytest.mark.parametrize("file, name, type_", STRUCTS)
def test_the_layout_is_the_compilers(file, name, type_):
    """Size, and place and size of each member."""
    found = layout(file, name, "d" if "double" in type_ else "f")
    places = "".join(f"*out++ = __builtin_offsetof(S, {m}), *out++ = sizeof(S::{m});\n" for m in found.names)
    code = (
        source("device.cuh")
        + "\n"
        + source(file)
        + f"""
typedef {type_} S;
extern "C" __global__ void places(u32 *out) {{ *out++ = sizeof(S); {places} }}"""
    )
    out = np.zeros(1 + 2 * len(found.names), np.uint32)
    compile.RawModule(code=code).get_function("places")((1,), (1,), (out,))
    members = [number for name in found.names for number in (found.fields[name][1], found.fields[name][0].itemsize)]
    assert out.tolist() == [found.itemsize, *members]


def test_what_a_struct_is_filled_with():
    """Numbers, device arrays of the type that is pointed to, None; nothing missing, nothing else."""
    with stand_in.installed() as cp:
        from bdiff_np.kernels.shared.cuda_cupy import struct

        walk = layout("training.cuh", "Walk")
        values = {name: None if field[0].metadata else 3 for name, field in walk.fields.items()}
        x = cp.zeros(4, np.uint8)
        filled = struct(walk, **values | {"x": x, "seed": 2**64 - 1})
        assert (
            filled.shape == (1,) and filled["x"] == x.data.ptr and filled["seed"] == 2**64 - 1 and filled["params"] == 0
        )
        for wrong in (
            {"params": x},
            {"params": np.zeros(4, np.float32)},
            {"params": cp.zeros((4, 4), np.float32)[:, ::2]},
            {"y": 3},
        ):
            with pytest.raises(TypeError, match="of the struct"):
                struct(walk, **values | wrong)
        with pytest.raises(TypeError, match="members of the struct: .'x'"):
            struct(walk, **{name: value for name, value in values.items() if name != "x"})
        with pytest.raises(OverflowError):
            struct(walk, **values | {"seed": 2**64})
