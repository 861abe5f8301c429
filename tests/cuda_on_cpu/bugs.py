"""Runs kernels of bugs.cu, in this process's mode: python -m cuda_on_cpu.bugs KERNEL ... prints a line of JSON for
each.

It is [kernel, numbers that it left behind, "" or why the launch failed].
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache

import numpy as np

from . import compile
from .exact import array

NAMES = ("static_shared_of<64>",)
COOPERATIVE = tuple(
    f"grid_barrier<{first}, {second}>" for first, second in (("true", "true"), ("true", "false"), ("false", "true"))
)
f32, i32, u32 = np.float32, np.int32, np.uint32


@lru_cache
def module(cooperative: bool = False) -> compile.RawModule:
    code = f'#line 1 "bugs.cu"\n{(compile.FOLDER / "bugs.cu").read_text()}'
    return compile.RawModule(
        code=code, name_expressions=COOPERATIVE if cooperative else NAMES, enable_cooperative_groups=cooperative
    )


def launch(name: str, order: int = 0, blocks: int = 2, missing: int = 0) -> np.ndarray:
    """What a kernel left in its array of float32 or int32, of threads in this order. missing : what the target of a
    grid_barrier is too small by

    Raises LaunchError.
    """
    before = compile.order, compile.patience
    compile.order, compile.patience = order, 1.0 if name == "spin" else before[1]
    try:
        return _launch(name, blocks, missing)
    finally:
        compile.order, compile.patience = before


def _launch(name: str, blocks: int, missing: int) -> np.ndarray:
    if name in COOPERATIVE:
        x, y, arrived = array(np.zeros(blocks), f32), array(np.zeros(64 * blocks), f32), array([0], u32)
        module(True).get_function(name)((blocks,), (64,), (x, y, arrived, u32(missing)))
        return y
    blocks = blocks if name in ("clean", "between_blocks", "block_fence_only") else 1
    x, y, flag = (
        array(np.arange(64 * blocks), i32 if name == "overflow" else f32),
        array(np.zeros(64), f32),
        array([0], u32),
    )
    arguments = {
        "clean": (x, flag), "block_fence_only": (x, flag), "spin": (flag,), "global_read": (x, y), "overflow": (x,
        i32(2**30)), "early_return": (x, i32(40)), "stack_overflow": (x, i32(0)),
    }.get(name, (x,))  # fmt: skip
    shared = 256 if name in ("clean", "dynamic_shared", "unwritten_dynamic") else 0
    module().get_function(name)((blocks,), (64,), arguments, shared_mem=shared)
    return y if name == "global_read" else x


if __name__ == "__main__":
    for word in sys.argv[1:]:
        try:
            line = word, launch(word).tolist(), ""
        except compile.LaunchError as problem:
            line = word, [], str(problem)
        print(json.dumps(line), flush=True)
