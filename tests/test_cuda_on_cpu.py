"""CUDA on the CPU: kernels do what CUDA says, planted bugs are found by the mode that should find them, the CuPy
stand-in is as strict as it says."""

from __future__ import annotations

import inspect
import json
import math
import platform
import re
import struct
import sys
import types
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pytest
from cuda_on_cpu import bugs, compile, sanitize, stand_in
from cuda_on_cpu.compile import CompileError, LaunchError, RawModule

pytestmark = [
    pytest.mark.gpu_ladder,
    pytest.mark.skipif(bool(sanitize.missing("plain")), reason=sanitize.missing("plain") or "-"),
]

ORDERS = (0, 1, 2, 3)
f32, f64, i8, i32, i64, u8, u32, u64 = (
    np.float32,
    np.float64,
    np.int8,
    np.int32,
    np.int64,
    np.uint8,
    np.uint32,
    np.uint64,
)


@lru_cache
def kernel(name: str):
    """A kernel of checks.cu."""
    code = f'#line 1 "checks.cu"\n{(compile.FOLDER / "checks.cu").read_text()}'
    names = "shuffles<int>", "shuffles<double>", "block_sums<64>"
    return RawModule(code=code, name_expressions=names).get_function(name)


@pytest.fixture(params=ORDERS)
def order(request, monkeypatch) -> int:
    monkeypatch.setattr(compile, "order", request.param)
    return request.param


# Places and turns
# ----------------------------------------------------------------------------------------------------------------------


def test_every_thread_of_every_block_runs_once_and_knows_its_place(order):
    """Three directions of grid and block, sizes that are no multiple of a warp."""
    grid, block = (3, 2, 2), (5, 3, 2)
    out = np.full((12, 30, 6), -1, i32)
    kernel("places")(grid, block, (out,))
    blocks, threads = (np.array(list(np.ndindex(n[::-1]))) for n in (grid, block))
    assert (out[..., :3] == blocks[:, None]).all() and (out[..., 3:] == threads).all()


def turns(order: int, monkeypatch) -> np.ndarray:
    """Who had which turn, (2, 4 blocks, 64 threads): before and after a barrier."""
    monkeypatch.setattr(compile, "order", order)
    out = np.zeros((2, 4, 64), u32)
    kernel("turns")((4,), (64,), (np.zeros(1, u32), out))
    return out.astype(int)


def test_orders(monkeypatch):
    """0 is forward, 1 backward, other numbers shuffle, each its own way, anew after a barrier, and the same way again
    next time."""
    forward, backward, shuffled = (turns(k, monkeypatch) for k in (0, 1, 2))
    expected = np.arange(64) + 128 * np.arange(4)[:, None]
    assert (forward[0] == expected).all() and (forward[1] == expected + 64).all()
    assert (backward == forward[:, ::-1, ::-1]).all()
    assert (
        sorted(shuffled.ravel()) == list(range(512))
        and (shuffled == turns(2, monkeypatch)).all()
        and (shuffled != turns(3, monkeypatch)).any()
    )
    assert (np.argsort(shuffled[0, 0]) != np.argsort(shuffled[1, 0])).any()
    assert len({tuple(turns(seed, monkeypatch)[0, :, 0].argsort()) for seed in range(2, 9)}) > 2  # blocks too


def test_device_variables_stay_and_constants_are_there():
    """A __device__ variable keeps its value from launch to launch."""
    first, second = np.zeros(2, i32), np.zeros(2, i32)
    for out in (first, second):
        kernel("count_launches")((1,), (32,), (out,))
    assert (second - first).tolist() == [1, 0] and first[1] == 5


# Meetings
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [np.zeros(96), np.ones(96), np.arange(96) % 3], ids=["none", "all", "some"])
def test_votes_of_a_block(order, x):
    """__syncthreads_count, _and and _or."""
    out = np.zeros((3, 96), i32)
    kernel("votes")((1,), (96,), (x.astype(i32), out))
    assert (out == [[np.count_nonzero(x)], [x.all()], [x.any()]]).all()


@pytest.mark.parametrize("dtype, name", [(i32, "shuffles<int>"), (f64, "shuffles<double>")], ids=["int", "double"])
@pytest.mark.parametrize("width", [32, 16, 4, 1])
def test_shuffles(order, dtype, name, width):
    """All four kinds, within segments of a warp: a lane beyond its segment gets its own value, but _xor reaches into
    earlier segments."""
    x, by = np.arange(64).astype(dtype) * 3 - 7, np.random.default_rng(width).integers(0, 32, 64).astype(i32)
    by[0] = 5
    out = np.zeros((4, 64), dtype)
    kernel(name)((1,), (64,), (x, by, out, i32(width)))
    for t in range(64):
        warp, lane = t // 32 * 32, t % 32
        first = lane // width * width
        stop = first + width
        up, down, xor = lane - 5, lane + 5, lane ^ 5
        sources = (
            first + by[t] % width,
            up if up >= first else lane,
            down if down < stop else lane,
            xor if xor < stop else lane,
        )
        assert out[:, t].tolist() == [x[warp + source] for source in sources], t


@pytest.mark.parametrize("mask", [0xFFFFFFFF, 0x0000FFFF, 0x80000001])
def test_ballots(order, mask):
    """Lanes that the mask does not name take no part and are not asked for."""
    x, named = (np.arange(64) % 5 == 0).astype(i32), np.tile(mask >> np.arange(32) & 1, 2).astype(bool)
    out = np.zeros((3, 64), u32)
    kernel("ballots")((1,), (64,), (x, u32(mask), out))
    for warp in range(2):
        votes = [k for k in range(32) if mask >> k & 1 and x[32 * warp + k]]
        expected = [sum(1 << k for k in votes), bool(votes), len(votes) == bin(mask).count("1")]
        assert (out[:, 32 * warp : 32 * warp + 32] == np.where(named[:32], np.array(expected)[:, None], 0)).all()


def test_parts_of_a_warp_meet_on_their_own(order):
    """Two halves go different ways at their own pace, then meet."""
    x = np.random.default_rng(0).integers(0, 100, 64).astype(i32)
    sums, most = x.reshape(2, 2, 16)[:, 0].sum(1), x.reshape(2, 2, 16)[:, 1].max(1)
    kernel("halves")((1,), (64,), (x,))
    assert (x.reshape(2, 2, 16) == np.stack([sums - most, most - sums], 1)[..., None]).all()


def test_shared_memory_is_a_blocks_own(order):
    """Static, of a template, and dynamic."""
    x, out = np.random.default_rng(0).integers(0, 99, (7, 64)).astype(f32), np.zeros(7, f32)
    kernel("block_sums<64>")((7,), (64,), (x, out), shared_mem=256)
    assert (out == 2 * x.sum(1)).all()


# Functions
# ----------------------------------------------------------------------------------------------------------------------


def signed(x: int, bits: int) -> int:
    return x - (x >> bits - 1 << bits)


def test_functions_of_whole_numbers():
    """Bits, high halves of products, minima of mixed types: against Python's integers."""
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 2**64, (2, 60), u64)
    x[:4], y[:2] = [0, 1, 2**64 - 1, 2**63], [2**64 - 1, 0]
    out = np.zeros((60, 16), u64)
    kernel("whole_numbers")((1,), (64,), (x, y, out, i32(60)))
    for (a, b), found in zip(zip(x.tolist(), y.tolist()), out.tolist()):
        low, high = a % 2**32, b % 2**32
        wide, sources = high << 32 | low, struct.pack("<II", low, high)
        assert found == [
            low.bit_count(), a.bit_count(), 32 - low.bit_length(), 64 - a.bit_length(), (low & -low).bit_length(),
            int(f"{low:032b}"[::-1], 2), low * high >> 32, (signed(low, 32) * signed(high, 32) >> 32) % 2**32,
            a * b >> 64, (signed(a, 64) * signed(b, 64) >> 64) % 2**64, (wide << 5) % 2**64 >> 32, (wide >> 5) % 2**32,
            int.from_bytes(bytes(sources[k] for k in (1, 4, 0, 7)), "little"), min(low, high), max(a, b), 2,
        ]  # fmt: skip


def test_functions_of_floats():
    """To two units in the last place; the fused ones exactly; a minimum is the one that is a number."""
    rng = np.random.default_rng(2)
    x, y = np.exp(rng.normal(size=(2, 50))).astype(f32)
    out = np.zeros((50, 16), f32)
    kernel("floats")((1,), (64,), (x, y, out, i32(50)))
    a, b = x.astype(f64), y.astype(f64)
    expected = [
        a * b + f64(f32(0.1)), a * b + f64(f32(0.1)), a + b, a * b, a / b, 1 / a, np.minimum(a, 1), 1 / np.sqrt(a),
        np.exp(a), np.log(a), np.log1p(a), np.tanh(a), a, a, np.maximum(a, b), np.sqrt(a) + np.exp(b) + a,
    ]  # fmt: skip
    np.testing.assert_allclose(out, np.stack(expected, 1), rtol=2.5e-7, atol=1e-9)
    assert (out[:, :2] == expected[0].astype(f32)[:, None]).all() and (out[:, 12] == x).all()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="denormals are flushed on x86-64 only")
def test_denormals_are_flushed_as_on_the_card(monkeypatch):
    """CuPy compiles with -ftz=true; here it can be switched off. The processor's state afterwards is what it was."""
    x, y = np.array([2e-38, 1e-39], f32), np.zeros(2, f32)
    kernel("halve")((1,), (2,), (x, y))
    assert y.tolist() == [0, 0] and (x * f32(0.5)).all()
    monkeypatch.setattr(compile, "flush_denormals", False)
    kernel("halve")((1,), (2,), (x, y))
    assert (y == x * f32(0.5)).all()


# Memory
# ----------------------------------------------------------------------------------------------------------------------


def test_atomic_operations(order):
    """All of them, on a thousand threads."""
    memory, signed_memory, large = (
        np.array([0, 2000, 9, 1, 0, 2**32 - 1, 0, 0, 0, 0], u32),
        np.zeros(2, i32),
        np.zeros(1, u64),
    )
    kernel("atomics")((1,), (1000,), (memory, signed_memory, large))
    xor = np.bitwise_xor.reduce(np.arange(1000))
    assert memory[:9].tolist() == [2000, 1000, 0, 999, 2**32 - 1, 0, xor, 9, 1000 % 7]
    assert signed_memory.tolist() == [-999, -1000] and large[0] == 1000 << 40
    # a chain from thread to thread, whole if they come in order
    assert memory[9] == 1000 if order == 0 else memory[9] > 0


def test_vectors():
    """A float4 is 16 bytes in the order x, y, z, w."""
    x, y = np.arange(40, dtype=f32), np.zeros(40, f32)
    kernel("reverse_fours")((1,), (32,), (x, y, i32(10)))
    assert (y == x[::-1]).all()


def test_dynamic_shared_memory_is_full_of_nan():
    """In every mode, so that a kernel that reads what nobody wrote gives itself away."""
    out = np.zeros(32, f32)
    kernel("unwritten")((1,), (32,), (out,), shared_mem=128)
    assert np.isnan(out).all()
    with pytest.raises(LaunchError, match=r"checks.cu:\d+: dynamic shared memory is used, but none was asked for"):
        kernel("unwritten")((1,), (32,), (out,))


# Compiling
# ----------------------------------------------------------------------------------------------------------------------


def test_errors_name_the_sources_own_lines():
    """Errors of the compiler and of a launch stand where the source's #line says."""
    bad = '#line 7 "seven.cu"\nextern "C" __global__ void f(float *x) { x[0] = y; }'
    with pytest.raises(CompileError, match=r"seven.cu:7:\d+: error: .y. was not declared"):
        RawModule(code=bad).get_function("f")
    late = '#line 12 "twelve.cu"\nextern "C" __global__ void f(int n) { if (threadIdx.x < n) __syncthreads(); }'
    where = r"\[block \(0, 0, 0\), thread \(0, 0, 0\)\]"
    with pytest.raises(
        LaunchError, match=rf"f: twelve.cu:12: a barrier waits for 2 threads that have left the kernel {where}"
    ):
        RawModule(code=late).get_function("f")((1,), (4,), (i32(2),))


@pytest.mark.parametrize(
    "code, message",
    [
        ("float *x) { atomicAdd(x, 1.0f); }", "no atomics on floats"),
        ("unsigned long *x) { atomicAdd(x, 1ul); }", "CUDA has atomics on"),
        ("const float *x) { x[0] = 1; }", "read-only location"),
        ("float x) { threadIdx.x = 1; }", "read-only"),
        ("float2 *x) { }", "a kernel's parameter is a number"),
    ],
)
def test_what_is_refused_at_compile_time(code, message):
    """The house's rules and CUDA's own."""
    with pytest.raises(CompileError, match=message):
        RawModule(code=f'extern "C" __global__ void f({code}').get_function("f")


def test_kernels_are_found_by_their_names():
    """extern "C" ones without being named, but not in comments; all others must be named; options define macros."""
    code = """// extern "C" __global__ void none(int n) {
    extern "C" __global__ void __launch_bounds__(N, 2) a(float *x) { x[0] = N; }
    extern "C" __global__ __launch_bounds__(N) void b(float *x) {}
    template <int K, typename T> __global__ void c(T *x) { x[0] = K; }
    __global__ void d(int *x) {}"""
    module, x = (
        RawModule(code=code, options=("-DN=64", "--use_fast_math"), name_expressions=["c<3, float>"]),
        np.zeros(1, f32),
    )
    assert set(module._entries) == {"a", "b", "c<3, float>"}
    for name, value in (("a", 64), ("c<3, float>", 3)):
        module.get_function(name)((1,), (1,), (x,))
        assert x[0] == value
    with pytest.raises(KeyError, match="no kernel .*d.* among"):
        module.get_function("d")


def test_two_processes_compile_the_same_source_at_once(tmp_path):
    """Both get the whole result; the next process takes it from the disk."""
    script = tmp_path / "twice.py"
    script.write_text(
        "import tempfile, time, numpy as np\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from cuda_on_cpu import compile\n"
        "start = time.perf_counter()\n"
        "module = compile.RawModule(code='extern \"C\" __global__ void f(float *x) { x[threadIdx.x] += 1; }')\n"
        "x = np.zeros(4, np.float32)\n"
        "module.get_function('f')((1,), (4,), (x,))\n"
        "assert (x == 1).all()\n"
        "print(len(list(compile._cache().glob('*.so'))))\n"
    )
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(lambda _: sanitize.run("plain", str(script)), range(2)):
            assert done.clean, done
    assert sanitize.run("plain", str(script)).output.split() == ["2"]  # the runtime and the module, nothing half made


def test_the_c_librarys_fibers_do_as_well(tmp_path):
    """What other processors than x86-64 use."""
    script = tmp_path / "portable.py"
    script.write_text(
        "from cuda_on_cpu import compile\ncompile.by_c_library = True\nfrom cuda_on_cpu import bugs\n"
        "print(bugs.launch('clean')[0], bugs.launch('grid_barrier<true, true>', blocks=3)[0])\n"
    )
    done = sanitize.run("plain", str(script))
    assert done.clean and done.output.split() == ["1520.0", "18.0"], done


# Launches that a card would refuse, and some that it would not
# ----------------------------------------------------------------------------


def arguments() -> tuple:
    """Right ones for `parameters`."""
    types_ = (f32, f64, u8, i8, i32, u32, i64, u64, np.bool_)
    return *(np.ones(1, t) for t in types_), *(t(1) for t in types_)


def test_every_type_of_parameter():
    """Pointers and values of each width arrive as they were."""
    given = arguments()
    values = (
        f32(0.5),
        f64(-3),
        u8(200),
        i8(-100),
        i32(-(2**31) + 200),
        u32(2**32 - 1),
        i64(2**62),
        u64(2**64 - 1),
        np.bool_(False),
    )
    kernel("parameters")((1,), (1,), given[:9] + values)
    found = [x[0] for x in given[:9]]
    assert found == [1.5, 1, 201, 1, -(2**31) + 100, 2**32 - 1, 2**62 - 3, 2**64 - 1, False]


MIXED = np.dtype([("out", u64), ("small", u8), ("wide", f64), ("n", i32)], align=True)


def mixed(out: np.ndarray, n: int) -> np.ndarray:
    return np.array([(out.ctypes.data, 200, 1e6, n)], MIXED)


def test_structs_by_value():
    """Whole, each its own, whatever stands between them; of another size or form they are refused."""
    out = np.zeros(2, u32)
    kernel("by_value")((1,), (1,), (mixed(out, -5), i32(0), mixed(out, 7)))
    assert out.tolist() == [1000195, 1000207]
    whole = mixed(out, 1)
    for wrong in (
        np.zeros(1, np.dtype(MIXED.descr[:2])),
        np.zeros(2, MIXED),
        np.zeros(MIXED.itemsize, u8),
        whole[0],
        5,
        None,
    ):
        with pytest.raises(
            TypeError, match=f"argument 2 must be a numpy.ndarray of one struct of {MIXED.itemsize} bytes"
        ):
            kernel("by_value")((1,), (1,), (whole, i32(0), wrong))


WRONG = {
    "too few": (lambda a: a[:-1], "takes 18 arguments, not 17"),
    "too many": (lambda a: (*a, i32(1)), "takes 18 arguments, not 19"),
    "Python's float": (lambda a: (*a[:9], 1.0, *a[10:]), "argument 9 must be numpy.float32, not 1.0 of type float"),
    "Python's int": (lambda a: (*a[:13], 1, *a[14:]), "argument 13 must be numpy.int32"),
    "wide scalar": (lambda a: (*a[:13], i64(1), *a[14:]), "argument 13 must be numpy.int32"),
    "sign of a scalar": (lambda a: (*a[:13], u32(1), *a[14:]), "argument 13 must be numpy.int32"),
    "array for a scalar": (lambda a: (*a[:13], np.ones(1, i32), *a[14:]), "argument 13 must be numpy.int32"),
    "scalar for an array": (lambda a: (f32(1), *a[1:]), "argument 0 is a pointer"),
    "wide array": (lambda a: (np.ones(1), *a[1:]), "argument 0 points to float32, not to float64"),
    "sign of an array": (lambda a: (*a[:4], np.ones(1, u32), *a[5:]), "argument 4 points to int32, not to uint32"),
    "not contiguous": (lambda a: (np.ones(4, f32)[::2], *a[1:]), "argument 0 is not contiguous"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_arguments_that_do_not_fit(wrong):
    """A card takes most of these, and computes nonsense."""
    change, message = WRONG[wrong]
    with pytest.raises(TypeError, match=re.escape(message)):
        kernel("parameters")((1,), (1,), change(arguments()))


SIZES = [
    ((0,), (1,)),
    ((1, 65536), (1,)),
    ((1, 1, 65536), (1,)),
    ((1,), (0,)),
    ((1,), (1025,)),
    ((1,), (1, 1, 65)),
    ((1,), (33, 32)),
]


@pytest.mark.parametrize("grid, block", SIZES)
def test_limits_of_grid_and_block(grid, block):
    """1024 threads, 64 of them in z; 65535 blocks in y and z."""
    with pytest.raises(LaunchError, match="a block has|a grid has"):
        kernel("places")(grid, block, (np.zeros(10**6, i32),))


def test_limits_of_shared_memory():
    """48 KiB, more only after asking for it, 227 KiB at most; a null pointer is taken as on the card."""
    found, out = RawModule(code=(compile.FOLDER / "checks.cu").read_text()).get_function("unwritten"), np.zeros(32, f32)
    found((1,), (32,), (out,), shared_mem=48 << 10)
    with pytest.raises(LaunchError, match="raise max_dynamic_shared_size_bytes first"):
        found((1,), (32,), (out,), shared_mem=(48 << 10) + 1)
    found.max_dynamic_shared_size_bytes = 227 << 10
    found((1,), (32,), (out,), shared_mem=227 << 10)
    with pytest.raises(LaunchError, match="a block can have 232448"):
        found.max_dynamic_shared_size_bytes = (227 << 10) + 1
    kernel("places")((1,), (1,), (np.zeros(6, i32),))


# Cooperative launches
# ---------------------------------------------------------------------------------------------------------------------


def test_blocks_of_a_cooperative_launch_have_shared_memory_of_their_own(order):
    """Static too, though all blocks are alive at the same time."""
    x, out = np.random.default_rng(0).integers(0, 99, (7, 64)).astype(f32), np.zeros(7, f32)
    module = RawModule(
        code=(compile.FOLDER / "checks.cu").read_text(),
        name_expressions=("block_sums<64>",),
        enable_cooperative_groups=True,
    )
    module.get_function("block_sums<64>")((7,), (64,), (x, out), shared_mem=256)
    assert (out == 2 * x.sum(1)).all()


@pytest.mark.parametrize("blocks", [1, 3, 8])
def test_a_barrier_of_the_whole_grid(order, blocks):
    """All blocks see what all others wrote, three times in a row."""
    assert (bugs.launch("grid_barrier<true, true>", order, blocks) == 3 * blocks * (blocks + 1) / 2).all()


def test_a_barrier_of_the_whole_grid_needs_a_cooperative_launch(monkeypatch):
    """Blocks that run one after the other never meet: an error after some seconds, not a hang; and the next launch is
    sound."""
    code, counter = (compile.FOLDER / "bugs.cu").read_text(), np.zeros(1, u32)
    alone = RawModule(code=code, name_expressions=bugs.COOPERATIVE[:1]).get_function(bugs.COOPERATIVE[0])
    monkeypatch.setattr(compile, "patience", 0.3)
    with pytest.raises(
        LaunchError,
        match=r"kernels.cu:\d+: nobody got on for 0.3 seconds: a barrier of the grid needs a cooperative launch",
    ):
        alone((2,), (64,), (np.zeros(2, f32), np.zeros(128, f32), counter, u32(0)))
    counter[0] = 0
    alone((1,), (64,), (np.zeros(2, f32), np.zeros(128, f32), counter, u32(0)))
    with pytest.raises(LaunchError, match="65 blocks cannot run at the same time, only 64"):
        bugs.launch(bugs.COOPERATIVE[0], blocks=65)
    with pytest.raises(LaunchError, match="nobody got on"):  # without __nanosleep
        bugs.launch("spin")


# Planted bugs
# ----------------------------------------------------------------------------------------------------------------------

LINES = (compile.FOLDER / "bugs.cu").read_text().splitlines()
MEMORY = {  # and what the address sanitizer, or that of undefined behaviour, calls it
    "global_write": "heap-buffer-overflow", "global_read": "heap-buffer-overflow",
    "static_shared": "global-buffer-overflow", "static_shared_of<64>": "global-buffer-overflow",
    "dynamic_shared": "heap-buffer-overflow", "local_array": "stack-buffer-overflow",
    "misaligned": "misaligned address", "overflow": "signed integer overflow",
}  # fmt: skip
RACES = ("read_after_write", "write_after_read", "no_syncwarp", "within_a_block", "between_blocks", "block_fence_only")
FENCES = ("grid_barrier<true, false>", "grid_barrier<false, true>")
UNWRITTEN = ("unwritten_static", "unwritten_dynamic", "static_shared_of<64>", "unwritten_local")
SOUND = ("clean", "grid_barrier<true, true>")
MEETINGS = {
    "divergent_barrier": "threads wait in different barriers, also bugs.cu:",
    "early_return": "a barrier waits for 24 threads that have left the kernel",
    "inactive_lane": "a warp collective names lane 16, which has left the kernel",
    "not_in_mask": "whose mask 0xffff does not name it",
    "beyond_mask": "a shuffle reads lane 16, which its mask 0xffff does not name",
    "other_site": "lanes meet in different warp collectives, also bugs.cu:",
}
CHILDREN = {  # the processes in which they run: mode, kernels
    "memory": ("address", (*SOUND, *MEMORY, *MEETINGS)), "stack, checked": ("address", ("stack_overflow",)),
    "stack": ("plain", ("stack_overflow",)), "races": ("thread", (*SOUND, *RACES, *MEETINGS)), "fences": ("thread",
    FENCES), "unwritten": ("poison", (*SOUND, *UNWRITTEN)),
}  # fmt: skip


@pytest.fixture(scope="module")
def children():
    """All children, two at a time; skips the test that asks for one in a mode that this machine lacks."""
    with ThreadPoolExecutor(2) as pool:
        running: dict[str, Future] = {
            name: pool.submit(sanitize.run, mode, "-m", "cuda_on_cpu.bugs", *kernels)
            for name, (mode, kernels) in CHILDREN.items()
            if not sanitize.missing(mode)
        }

        def outcome(name: str) -> sanitize.Outcome:
            if name not in running:
                pytest.skip(sanitize.missing(CHILDREN[name][0]))
            return running[name].result()

        yield outcome


def left(done: sanitize.Outcome) -> dict[str, tuple[list, str]]:
    """For each kernel of a child, the numbers that it left behind and why its launch failed."""
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("[")]
    return {name: (numbers, failure) for name, numbers, failure in lines}


def reported(done: sanitize.Outcome) -> dict[str, str]:
    """The reports on each kernel, by its name without template arguments; those that name no line of bugs.cu under
    ""."""
    found: dict[str, str] = {}
    for report in done.reports:
        lines = [int(n) for n in re.findall(r"bugs\.cu:(\d+)", report)]
        names = [re.search(r"void (\w+)\(", line) for line in LINES[: lines[0]]] if lines else []
        name = next((match[1] for match in reversed(names) if match), "")
        found[name] = found.get(name, "") + report
    return found


def plain(name: str) -> str:
    return name.partition("<")[0]


@pytest.mark.parametrize("name", MEMORY)
def test_memory_bugs_are_found(children, name):
    """Out of bounds of global, shared and local memory, misaligned, overflowing: by the mode "address"."""
    assert MEMORY[name] in reported(children("memory")).get(plain(name), ""), children("memory")


@pytest.mark.parametrize("name", [*RACES, *FENCES])
def test_races_are_found(children, name):
    """Missing barriers, syncwarps and fences, within a block and between blocks: by the mode "thread"."""
    done = children("fences" if name in FENCES else "races")
    assert "data race" in reported(done).get(plain(name), ""), done
    assert done.code, "a report makes the child fail"


@pytest.mark.parametrize("name", UNWRITTEN)
def test_unwritten_memory_is_found(children, name):
    """It reads as NaN: in the mode "poison" the static kind too, in templates too; and local variables as -2e38."""
    numbers, failure = left(children("unwritten"))[name]
    assert any(math.isnan(x) or x < -1e38 for x in numbers) and not failure


@pytest.mark.parametrize("name", MEETINGS)
@pytest.mark.parametrize("child", ["memory", "races"])
def test_wrong_meetings_are_found(children, child, name):
    """Barriers and warp collectives that not all come to: in every mode, with the line; and no sanitizer takes the
    failure for something else."""
    with pytest.raises(LaunchError, match=re.escape(MEETINGS[name])):
        bugs.launch(name)
    numbers, failure = left(children(child))[name]
    assert re.search(rf"bugs\.cu:\d+: .*{re.escape(MEETINGS[name])}", failure) and name not in reported(children(child))


@pytest.mark.parametrize("child", ["memory", "races", "unwritten"])
def test_sound_kernels_are_left_alone(children, child):
    """A kernel without a bug gives the same in every mode, and nobody reports on it or on the tool itself."""
    done = children(child)
    for name in SOUND:
        numbers, failure = left(done)[name]
        assert not failure and numbers == bugs.launch(name).tolist()
    assert not {"", *map(plain, SOUND)} & set(reported(done)), done
    if child == "races":
        assert set(reported(done)) == set(RACES), done


def test_a_stack_that_grows_too_large_is_a_fault(children):
    """Never silent damage: a signal, in the mode "address" with its name."""
    assert children("stack").code < 0
    assert "stack-overflow" in reported(children("stack, checked"))["stack_overflow"]


@pytest.mark.parametrize("name", ["read_after_write", "write_after_read", "no_syncwarp"])
def test_missing_barriers_show_as_results_that_depend_on_the_order(name):
    """Even without a sanitizer."""
    results = {bugs.launch(name, order).tobytes() for order in ORDERS}
    assert len(results) > 1
    assert len({bugs.launch("clean", order).tobytes() for order in ORDERS}) == 1


def test_a_target_that_is_too_small_is_a_race(tmp_path):
    """A barrier of the grid that lets the first go before the last has come."""
    if sanitize.missing("thread"):
        pytest.skip(sanitize.missing("thread"))
    done = sanitize.run(
        "thread", "-c", "from cuda_on_cpu import bugs\nbugs.launch('grid_barrier<true, true>', blocks=3, missing=1)"
    )
    assert "data race" in reported(done)["grid_barrier"]
    sound = sanitize.run(
        "thread",
        "-c",
        "from cuda_on_cpu import bugs\nfor n in (1, 3, 8): bugs.launch('grid_barrier<true, true>', blocks=n)",
    )
    assert sound.clean, sound


# Children
# ----------------------------------------------------------------------------------------------------------------------


def test_no_report_is_lost(tmp_path):
    """Pytest swallows what its tests write, and this one passes: the report is there all the same."""
    if sanitize.missing("address"):
        pytest.skip(sanitize.missing("address"))
    test = (
        "from cuda_on_cpu import bugs\ndef test_it():\n    bugs.launch('misaligned')\n    bugs.launch('global_read')\n"
    )
    (tmp_path / "test_it.py").write_text(test)
    done = sanitize.run("address", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_it.py"))
    assert "1 passed" in done.output and set(reported(done)) == {"misaligned", "global_read"} and not done.clean, done


def test_a_child_that_never_ends_is_ended():
    """With the processes that it started."""
    done = sanitize.run(
        "plain",
        "-c",
        "import subprocess, time\nprint('begun', flush=True)\nsubprocess.run(['sleep', '60'])",
        seconds=1.5,
    )
    assert done.code is None and not done.clean and "begun" in done.output


def test_a_sanitizer_must_be_there_from_the_start(tmp_path):
    """A mode's name alone is refused with a sentence, before the loader ends the process."""
    code = "import os\nos.environ['CUDA_ON_CPU_MODE'] = 'address'\nfrom cuda_on_cpu import bugs\nbugs.launch('clean')"
    assert "run it through cuda_on_cpu.sanitize" in sanitize.run("plain", "-c", code).output


# The stand-in: arrays
# ---------------------------------------------------------------------------------------------------------------------

DOUBLE = (
    'extern "C" __global__ void twice(float *x, int n) { const int i = blockIdx.x * blockDim.x + threadIdx.x; if '
    "(i < n) x[i] *= 2; }"
)


@pytest.fixture
def cp():
    """The stand-in, a large card, and no events yet."""
    with stand_in.installed() as module:
        stand_in.clear()
        yield module
        vars(stand_in.card).update(vars(type(stand_in.card)()) | {"used": stand_in.card.used})


@pytest.fixture
def twice(cp):
    return cp.RawKernel(DOUBLE, "twice")


def matrix(cp, rows: int = 3, columns: int = 4):
    return cp.asarray(np.arange(rows * columns, dtype=f32).reshape(rows, columns) - 2)


def test_new_memory_is_poisoned_and_aligned(cp):
    """What CuPy's pool gives is not zero, and a multiple of 512."""
    for dtype in (f32, f64, u8, i32, i64):
        x = cp.empty((3, 5), dtype)
        assert (
            x.data.ptr % 512 == 0
            and (x.get().view(u8) == 0xFF).all()
            and x.__cuda_array_interface__["data"] == (x.data.ptr, False)
        )
    assert (
        stand_in.count("alloc") == 5
        and cp.zeros(3).get().tolist() == [0, 0, 0]
        and cp.full(2, 7, i32).get().tolist() == [7, 7]
    )


def test_operators_equal_numpys(cp):
    """Values and dtypes, with scalars and arrays, given, reversed and in place."""
    host = {
        "x": np.arange(1, 13, dtype=f32).reshape(3, 4),
        "y": np.arange(4, dtype=f32) + 1,
        "n": np.arange(12, dtype=i32).reshape(3, 4),
    }
    device = {name: cp.asarray(x) for name, x in host.items()}
    texts = """x + y | x - 2 | 2 / x | x * y | x // 2 | x % 3 | x ** 2 | 2 ** x | -x | abs(-x) | n & 3 | 1 - n
        n ^ n | ~n | n << 2 | n >> 1
        x == y | x != 2 | x < y | x <= 3 | x > y | x >= y | n * np.int32(3) | np.float32(3) * x | x.sum()
        x.sum(axis=0) | n.sum(1) | x.max()
        x.mean(axis=1, keepdims=True) | n.min(axis=0) | x.T | x[1] | x[:, 1:3] | x[..., None, 0] | x[1, 2]
        x[::-1] | x.reshape(4, 3)
        x.T.ravel() | n.view(np.float32) | x.astype(np.int32) | x.copy() | x.transpose(1, 0) | (x > 3).any()
        x @ y | x.T @ x | (y > 2) * 1"""
    for text in re.split(r" \| |\n +", texts):
        expected, found = (eval(text, {"np": np}, names) for names in (host, device))
        assert isinstance(found, cp.ndarray) and found.dtype == expected.dtype and found.shape == np.shape(expected), (
            text
        )
        np.testing.assert_allclose(found.get(), expected, rtol=1e-6, err_msg=text)
    x = device["x"]
    x += 1
    x *= device["y"]
    x[0, 1:] = 9
    x[1] = device["y"]
    expected = (host["x"] + 1) * host["y"]
    expected[0, 1:], expected[1] = 9, host["y"]
    assert (
        (x.get() == expected).all()
        and len(x) == 3
        and x.item(0) == float(x[0, 0]) == 2
        and int(x[0, 1]) == 9
        and bool(x[0, 0])
    )


def test_functions_equal_numpys(cp):
    """With and without out=."""
    host = np.linspace(0.1, 2, 12, dtype=f32).reshape(3, 4)
    x, out = cp.asarray(host), cp.empty((3, 4), f32)
    for name in ("exp", "log", "log1p", "sqrt", "tanh", "square", "negative", "sign", "floor"):
        expected = getattr(np, name)(host)
        np.testing.assert_allclose(getattr(cp, name)(x).get(), expected, rtol=1e-6)
        assert getattr(cp, name)(x, out=out) is out and np.allclose(out.get(), expected)
    assert (cp.maximum(x, 1).get() == np.maximum(host, 1)).all() and (
        cp.where(x > 1, x, 0).get() == np.where(host > 1, host, 0)
    ).all()
    assert (cp.concatenate([x, x], axis=1).get() == np.concatenate([host, host], 1)).all()
    assert (cp.stack([x, x]).get() == np.stack([host, host])).all()
    assert (
        (cp.arange(3, 9, 2).get() == np.arange(3, 9, 2)).all()
        and cp.ones_like(x).get().all()
        and cp.clip(x, 0.5, 1).get().max() == 1
    )
    assert (
        cp.ascontiguousarray(x.T).flags.c_contiguous
        and not x.T.flags.c_contiguous
        and x.T.flags.f_contiguous
        and cp.asarray(x) is x
    )


REFUSED = {
    "host array beside a device array": lambda cp, x, h: x + h,
    "the other way round": lambda cp, x, h: h + x,
    "host array as out": lambda cp, x, h: cp.exp(x, out=h),
    "conversion to NumPy": lambda cp, x, h: np.asarray(x),
    "NumPy's exp": lambda cp, x, h: np.exp(x),
    "NumPy's sum": lambda cp, x, h: np.sum(x),
    "NumPy's matmul": lambda cp, x, h: h.T @ x,
    "assignment of a host array": lambda cp, x, h: x.__setitem__(0, h[0]),
    "assignment of a list": lambda cp, x, h: x.__setitem__(0, [1, 2, 3, 4]),
    "list as index": lambda cp, x, h: x[[0, 1]],
    "host array as index": lambda cp, x, h: x[np.array([0, 1])],
    "host mask": lambda cp, x, h: x[h > 0],
    "set of another dtype": lambda cp, x, h: x.set(h.astype(f64)),
    "set of a list": lambda cp, x, h: x.set([1.0]),
    "get into another dtype": lambda cp, x, h: x.get(out=np.zeros((3, 4))),
    "narrowing in place": lambda cp, x, h: cp.add(x, np.float64(1) + cp.zeros(4), out=cp.zeros((3, 4), i32)),
    "list of device arrays": lambda cp, x, h: cp.asarray([x, x]),
    "concatenation with a host array": lambda cp, x, h: cp.concatenate([x, h]),
    "matmul with a host array": lambda cp, x, h: cp.matmul(x, h.T),
    "hash": lambda cp, x, h: hash(x),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_stays_apart(cp, what):
    """Host and device do not mix, nothing is converted unasked."""
    with pytest.raises(TypeError):
        REFUSED[what](cp, matrix(cp), np.ones((3, 4), f32))


def test_other_errors(cp):
    """Shapes that do not fit, dtypes that CuPy lacks."""
    with pytest.raises(ValueError, match="Shape mismatch"):
        matrix(cp).set(np.ones(12, f32))
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cp.asarray(np.array(["a"]))
    with pytest.raises(RuntimeError, match="non-contiguous"):
        matrix(cp)[:, ::2].set(np.ones((3, 2), f32))


def test_indices_on_the_device(cp):
    """Whole numbers are taken without waiting, bools with."""
    x, host = matrix(cp), matrix(cp).get()
    stand_in.clear()
    rows = x[cp.asarray(np.array([2, 0]))]
    assert stand_in.count("sync") == 0 and (rows.get() == host[[2, 0]]).all()
    stand_in.clear()
    positive = x[x > 0]
    assert stand_in.count("sync", "boolean mask") == 1 and (positive.get() == host[host > 0]).all()
    x[cp.asarray(np.array([1]))] = 5
    x[x < 0] = 0
    assert (x.get()[1] == 5).all() and x.get().min() == 0


def test_events_count_what_crosses(cp, twice):
    """Every read of the device waits; uploads and launches do not."""
    x = cp.asarray(np.ones(1000, f32))
    twice((4,), (256,), (x, i32(1000)), shared_mem=16)
    value = float(x.sum())
    bool(x[0] > 0), x.get(), repr(x[:2])
    assert value == 2000 and stand_in.count("h2d") == 1 and stand_in.count("d2h") == 4 == stand_in.count("sync")
    assert (
        ("h2d", 4000) in stand_in.events
        and ("d2h", 4) in stand_in.events
        and ("launch", "twice", (4,), (256,), 16) in stand_in.events
    )
    assert (
        stand_in.count("launch", "twice") == 1
        and stand_in.count("launch", "other") == 0
        and stand_in.count("op", "sum") == 1
    )


# The stand-in: products
# -------------------------------------------------------------------------------------------------------------------


def test_products_go_to_cublas_as_they_are(cp):
    """Contiguous operands and transposes of such are not copied, and out= is written in place."""
    a, b = matrix(cp, 3, 4), matrix(cp, 5, 4)
    out = cp.empty((3, 5), f32)
    stand_in.clear()
    assert cp.matmul(a, b.T, out=out) is out and stand_in.events == [("gemm", (3, 4), (4, 5))]
    assert (out.get() == a.get() @ b.get().T).all() and out.dtype == f32
    stand_in.clear()
    cp.matmul(a[:, :2], b.T[:2], out=out)  # neither rows nor columns lie close
    assert stand_in.count("alloc") == 2 and stand_in.count("gemm") == 1
    stand_in.clear()
    assert (a @ b.T).shape == (3, 5) and stand_in.count("alloc") == 1


def test_products_that_are_none(cp):
    """One row with one column is a sum; an empty sum is zero; integers have a kernel of their own; a product in place
    goes through a copy."""
    a, square = matrix(cp), matrix(cp, 3, 3)
    assert (
        float(a[0] @ a[0]) == float((a.get()[0] ** 2).sum())
        and not cp.matmul(cp.empty((2, 0)), cp.empty((0, 3))).get().any()
    )
    whole = a.astype(i32)
    assert (cp.matmul(whole, whole.T).get() == whole.get() @ whole.get().T).all() and stand_in.count("gemm") == 0
    expected = square.get() @ square.get()
    stand_in.clear()
    cp.matmul(square, square, out=square)
    assert stand_in.count("alloc") == 1 and (square.get() == expected).all()


@pytest.mark.parametrize(
    "shape, dtype, turned", [((3, 4), f32, False), ((3, 3), f64, False), ((3, 3), f32, True), ((9,), f32, False)]
)
def test_out_of_a_product_must_fit(cp, shape, dtype, turned):
    """CuPy would make a copy of some of these, silently."""
    a, out = matrix(cp, 3, 3), cp.empty(shape, dtype)
    with pytest.raises(ValueError, match="out must be a contiguous float32"):
        cp.matmul(a, a, out=out.T if turned else out)


# The stand-in: kernels, streams and graphs
# ------------------------------------------------------------------------------------------------


def test_kernels_take_device_arrays(cp, twice):
    """And exact scalars, tuples for grid and block; null pointers as in CuPy."""
    x = matrix(cp)
    twice((1,), (32,), (x, i32(12)))
    assert (x.get() == 2 * matrix(cp).get()).all()
    twice((1,), (32,), (None, i32(0)))
    for wrong in (
        (np.ones(12, f32), i32(12)),
        (x, 12),
        (x, 12.0),
        (x, i64(12)),
        (x.astype(f64), i32(12)),
        (x.T, i32(12)),
        (x,),
    ):
        with pytest.raises(TypeError):
            twice((1,), (32,), wrong)
    with pytest.raises(TypeError, match="must be tuples"):
        twice(1, 32, (x, i32(12)))
    with pytest.raises(TypeError, match="options must be a tuple"):
        cp.RawModule(code=DOUBLE, options=["-std=c++17"])


def test_a_graph_keeps_structs_as_they_were(cp):
    """The launch copies what it is given by value, also one that is recorded; the array behind it may change."""
    code = """struct Add { int *x; int by; };
extern "C" __global__ void add(Add a) { a.x[0] += a.by; }"""
    add, x, stream = cp.RawModule(code=code).get_function("add"), cp.zeros(1, i32), cp.cuda.Stream()
    given = np.array([(x.data.ptr, 5)], np.dtype([("x", u64), ("by", i32)], align=True))
    with stream:
        stream.begin_capture()
        add((1,), (1,), (given,))
        graph = stream.end_capture()
    given["by"] = 100
    del given
    graph.launch()
    graph.launch()
    assert x.get().tolist() == [10]


def test_a_graph_does_later_what_it_recorded(cp, twice):
    """Nothing runs during capture; each launch of the graph runs all of it, on what the arrays hold by then."""
    x, y = matrix(cp), cp.zeros((3, 4), f32)
    before, stream = x.get(), cp.cuda.Stream(non_blocking=True)
    with stream:
        assert cp.cuda.get_current_stream() is stream
        stream.begin_capture()
        assert stream.is_capturing()
        twice((1,), (32,), (x, i32(12)))
        cp.add(x, 1, out=y)
        y[0] = 7
        graph = stream.end_capture()
    assert (
        (x.get() == before).all()
        and not y.get().any()
        and stand_in.count("captured", "launch") == 1
        and stand_in.count("launch") == 0
    )
    graph.launch(stream)
    assert (x.get() == 2 * before).all() and (y.get()[1:] == 2 * before[1:] + 1).all() and (y.get()[0] == 7).all()
    x.fill(1)
    graph.launch()
    graph.launch()
    assert (x.get() == 4).all() and stand_in.count("graph", 3) == 3


def test_a_kernel_is_captured_with_its_own_stream_only(cp, twice):
    """One that is launched while another stream is current runs at once."""
    x, capturing, other = matrix(cp), cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    before = x.get()
    capturing.begin_capture()
    with other:
        twice((1,), (32,), (x, i32(12)))
    twice((1,), (32,), (x, i32(12)))  # on the default stream, which this capture does not forbid
    twice((1,), (32,), (x, i32(12)), stream=capturing)
    assert (x.get() == 4 * before).all()
    capturing.end_capture().launch()
    assert (x.get() == 8 * before).all()


def test_the_default_stream_does_not_mix_with_capture(cp, twice):
    """It cannot capture, and its work spoils the capture of a stream that waits for it."""
    with pytest.raises(RuntimeError, match="cannot capture on the default"):
        cp.cuda.get_current_stream().begin_capture()
    blocking = cp.cuda.Stream()
    blocking.begin_capture()
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="StreamCaptureImplicit"):
        twice((1,), (32,), (matrix(cp), i32(12)))
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
        blocking.end_capture()


SPOILING = {
    "get": lambda cp, x, y, mask: x.get(),
    "float": lambda cp, x, y, mask: float(x[0, 0]),
    "stream": lambda cp, x, y, mask: cp.cuda.get_current_stream().synchronize(),
    "device": lambda cp, x, y, mask: cp.cuda.Device().synchronize(),
    "mask": lambda cp, x, y, mask: x[mask],
}
NOT_CAPTURED = {
    "empty": lambda cp, x, y, mask: cp.empty(3),
    "operator": lambda cp, x, y, mask: x + 1,
    "copy": lambda cp, x, y, mask: x.copy(),
    "sum": lambda cp, x, y, mask: x.sum(),
    "upload": lambda cp, x, y, mask: cp.asarray(np.ones(3)),
    "set": lambda cp, x, y, mask: x.set(np.ones((3, 4), f32)),
    "matmul": lambda cp, x, y, mask: cp.matmul(x, x.T, out=y),
}


@pytest.mark.parametrize("what", [*SPOILING, *NOT_CAPTURED])
def test_what_cannot_be_captured(cp, what):
    """Reads and waits spoil the capture; allocations, uploads and cuBLAS are refused."""
    x, y, stream = matrix(cp), cp.empty((3, 3), f32), cp.cuda.Stream(non_blocking=True)
    call, mask = {**SPOILING, **NOT_CAPTURED}[what], x > 0
    kind, message = (
        (NotImplementedError, "calling cuBLAS API during stream capture")
        if what == "matmul"
        else (RuntimeError, "captur")
    )
    with stream:
        stream.begin_capture()
        with pytest.raises(kind, match=message):
            call(cp, x, y, mask)
        if what in SPOILING:
            with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
                stream.end_capture()
        else:
            stream.end_capture()
    call(cp, x, y, mask)  # afterwards all is as before


def test_a_graph_does_not_keep_arrays_alive(cp, twice):
    """On the card it would write into memory that is somebody else's by now."""
    x, stream = cp.zeros(12, f32), cp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        twice((1,), (32,), (x, i32(12)))
        graph = stream.end_capture()
    graph.launch()
    del x
    with pytest.raises(RuntimeError, match="an array that is gone"):
        graph.launch()
    with pytest.raises(NotImplementedError):
        cp.cuda.Graph()


# The stand-in: the card
# -------------------------------------------------------------------------------------------------------------------


def test_a_small_card(cp):
    """Its limits show in what the card says of itself, and in what it refuses."""
    stand_in.card.multiprocessors, stand_in.card.shared_memory, stand_in.card.memory = 2, 64 << 10, 10**6
    found = cp.cuda.Device()
    assert found.attributes["MultiProcessorCount"] == 2 and found.attributes["MaxSharedMemoryPerBlockOptin"] == 64 << 10
    assert found.compute_capability == "90" and found.mem_info[1] == cp.cuda.runtime.memGetInfo()[1] == 10**6
    properties = cp.cuda.runtime.getDeviceProperties(0)
    assert (
        properties["multiProcessorCount"] == 2
        and properties["totalGlobalMem"] == 10**6
        and isinstance(properties["name"], bytes)
    )
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="Out of memory allocating 1,200,000 bytes"):
        cp.empty(300_000, f32)
    module = cp.RawModule(
        code=(compile.FOLDER / "bugs.cu").read_text(), name_expressions=bugs.COOPERATIVE, enable_cooperative_groups=True
    )
    barrier = module.get_function(bugs.COOPERATIVE[0])
    with pytest.raises(LaunchError, match="a block can have 65536"):
        barrier.max_dynamic_shared_size_bytes = 65537
    barrier.max_dynamic_shared_size_bytes = 40 << 10
    x, y, arrived = cp.zeros(3, f32), cp.zeros(192, f32), cp.zeros(1, u32)
    barrier((2,), (64,), (x, y, arrived, u32(0)), shared_mem=40 << 10)
    with pytest.raises(LaunchError, match="3 blocks cannot run at the same time, only 2"):
        barrier((3,), (64,), (x, y, arrived, u32(0)), shared_mem=40 << 10)


def test_memory_is_given_back(cp):
    """With the last view of an array; the pool counts it in steps of 512 bytes."""
    pool = cp.get_default_memory_pool()
    before = pool.used_bytes()
    x = cp.zeros(1000, f32)
    row = x[10:20]
    del x
    assert pool.used_bytes() - before == 4096 and row.get().tolist() == [0] * 10
    del row
    assert pool.used_bytes() == before and cp.cuda.Device().mem_info[0] == 80 * 10**9 - before


def test_times_and_waits(cp):
    """Events of a stream, and the three ways to wait."""
    start, stop, stream = cp.cuda.Event(), cp.cuda.Event(), cp.cuda.Stream()
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError):
        cp.cuda.get_elapsed_time(start, stop)
    start.record()
    stop.record(stream)
    stop.synchronize()
    stream.synchronize()
    cp.cuda.runtime.deviceSynchronize()
    assert cp.cuda.get_elapsed_time(start, stop) >= 0 and stand_in.count("sync") == 3 and cp.cuda.is_available()


def test_install_and_uninstall(tmp_path, monkeypatch):
    """What was there is there again; modules that used the stand-in are forgotten, others are not."""
    (tmp_path / "uses_cupy.py").write_text("import cupy\n")
    (tmp_path / "uses_it.py").write_text("import uses_cupy\n")
    (tmp_path / "uses_neither.py").write_text("import json\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("cupy.")]:  # where another test has the real one
        monkeypatch.delitem(sys.modules, name)
    before = types.ModuleType("cupy")
    monkeypatch.setitem(sys.modules, "cupy", before)
    with stand_in.installed() as module:
        import cupy
        import cupy.cuda.runtime as runtime
        import uses_it  # noqa: F401
        import uses_neither  # noqa: F401

        assert cupy is module and runtime is cupy.cuda.runtime
    assert (
        sys.modules["cupy"] is before
        and "uses_neither" in sys.modules
        and not {"uses_it", "uses_cupy", "cupy.cuda"} & set(sys.modules)
    )


OUR_OWN = ("most_shared", "most_blocks")  # members of RawKernel by which compile.py asks for the card's limits


def test_every_name_is_cupys():
    """Each public name of the stand-in exists in the real CuPy, and takes parameters of the same names."""
    real = pytest.importorskip(
        "cupy", reason="cupy is not installed: the stand-in's names are not checked against it", exc_type=ImportError
    )
    with stand_in.installed():
        modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "cupy"}
    names = 0
    for name, module in modules.items():
        there = real if name == "cupy" else eval(f"real.{name.partition('.')[2]}")
        for key, value in vars(module).items():
            if key.startswith("_"):
                continue
            assert hasattr(there, key), f"{name}.{key}"
            names += 1
            members = vars(value) if inspect.isclass(value) and value.__module__.startswith("cuda_on_cpu") else {}
            for member in members:
                assert member.startswith("_") or member in OUR_OWN or hasattr(getattr(there, key), member), (
                    key,
                    member,
                )
            check_parameters(value, getattr(there, key))
    assert names > 90


def check_parameters(ours, theirs) -> None:
    """That a function of ours takes no parameter that CuPy's lacks, where CuPy says what its takes."""
    try:
        wanted, known = inspect.signature(ours), inspect.signature(theirs)
    except (TypeError, ValueError):
        return
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.parameters.values())
    for parameter in wanted.parameters.values():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        assert not named or open_ended or parameter.name in known.parameters, (ours, parameter.name, known)


def test_the_check_of_names_sees_a_wrong_one():
    """The test above could fail."""
    with pytest.raises(AssertionError):
        check_parameters(lambda shape, colour: None, lambda shape, dtype: None)
