"""What each GPU kernel must move and compute, and so the least time that it can take: beside what was measured on a
card, or alone, without one.

    python benchmarks/gpu_kernels.py    the table of benchmarks/RESULTS.md: registers, shared memory, occupancy, loads,
                                        expected time on an H100; needs CUDA's compilers, no GPU:
                                        pip install -e ".[gpu-check]"

The counts are those of the kernels' banners. A draw is a random bit of given probability, some 12 integer
instructions: a byte of Philox, and ties (philox.cuh); a word of 32 bits is as much as 1.7 draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent


class Limits(NamedTuple):
    """Of a card, per second: bytes from its memory, float32 operations, random draws (by integer instructions)."""

    name: str
    bytes: float
    operations: float
    draws: float


H100 = Limits(
    "H100 SXM", 3.35e12, 66.9e12, 1.2e12
)  # NVIDIA's data sheet; draws: 132 multiprocessors of 64 integer lanes at 1.7 GHz, 12 a draw


class Work(NamedTuple):
    """One kernel at a size that keeps a whole card busy.

    kernel : as tests/gpu/compiled.py has it. unit : what is counted, `count` of them
    loads : that a thread issues for one, of 1 to 16 bytes, from global memory or the caches over it; for products, from
        shared memory
    bytes, operations, draws : of one, from and to global memory. shared : bytes of dynamic shared memory of a block
    """

    kernel: str
    unit: str
    count: int
    loads: float
    bytes: float
    operations: float
    draws: float = 0.0
    shared: int = 0

    def least(self, card: Limits = H100) -> tuple[float, str]:
        """Seconds that it takes at least, and what bounds it."""
        # Our products read shared memory once for eight multiply-adds, which halves the rate at which they can go
        # (gemm.cu, mlp.cuh).
        rate = card.operations / 2 if self.unit == "multiply-add" else card.operations
        times = {
            "bytes": self.bytes / card.bytes,
            "operations": self.operations / rate,
            "draws": self.draws / card.draws,
        }
        bound = max(times, key=times.__getitem__)
        return self.count * times[bound], bound


B, D, H, P, F = 1 << 16, 784, 512, 1 << 24, 16  # rows, bits, units, parameters and features of time of what streams
N = 1 << 14  # rows of a narrow net's products
WAYS = ("false, false", "true, false", "false, true")  # which of the two matrices is transposed


def works() -> list[Work]:
    """All kernels. The last two are of the 20-50-50-20 net of the paper, whole."""
    bits, units = B * D, B * H
    net = narrow_net()
    macs = sum(n_in * n_out for n_in, n_out in _widths(net)) + 2 * sum(F * n_out for _, n_out in _widths(net)[:-1])
    asked = sum(n_in * n_out for n_in, n_out in _widths(net)) / 12 / 20  # multiply-adds of a draw
    step_plan, chain_plan = plans(net)
    return [
        Work("prior<256>", "bit", bits, 1, 1, 0, 1),
        Work("draw_t<256>", "row", 1 << 20, 0, 8, 0),
        Work("unpack<256>", "bit", bits, 0.25, 1 + 1 / 8, 0),
        Work("q_sample<256, float>", "bit", bits, 2.25, 2, 0, 1),
        Work("q_batch<256, float>", "bit", bits, 1.75, 2 + 1 / 8, 0, 1),
        Work("kl_grad<256, float>", "bit", bits, 10, 10, 40),
        Work("p_flip<256, float>", "bit", bits, 5, 9, 20),
        Work("p_sample<256, float>", "bit", bits, 7, 6, 20, 1),
        Work("finish<256, float>", "row", 1 << 20, 1, 4, 1),
        Work("read<256, float>", "bit", bits, 1 + 2 * F / D, 5 + 4 * F / D * 2, 1),
        Work("activate<float, 1>", "unit", units, 4, 16, 15),
        Work("activate<float, 4>", "unit", units, 1.75, 16, 15),
        Work("activate_backward<float, 1>", "unit", units, 5, 28, 25),
        Work("activate_backward<float, 4>", "unit", units, 2, 28, 25),
        Work("column_sums<float, 1>", "unit", units, 1, 4, 1),
        Work("column_sums<float, 4>", "unit", units, 0.25, 4, 1),
        Work("sum_parts<float>", "parameter", P, 1, 8, 2),
        Work("norm<float>", "piece", 1024, 1, 4, 2),
        Work("adamw<float>", "parameter", P, 6, 37, 20),
        Work("layer_norm<float>", "unit", units, 5, 8, 8),
        Work("layer_norm_backward<float>", "unit", units, 6, 12, 20),
        Work("layer_norm_sums<float>", "unit", units, 4, 8, 5),
        Work("keep_mask<256, float>", "unit", units, 0, 4, 0, 1),
        Work("shuffle_words<256>", "row", N << 6, 0, 8, 0, 3.4),
        *(Work(f"multiply<{way}, float>", "multiply-add", N * 128 * 128, 1 / 8, 3 * 4 / 128, 2) for way in WAYS),
        # Of a row: its data and bits once, products forward, backward and for the weights; of all weights AdamW once a
        # step, which is left out.
        Work("take", "multiply-add", N * 3 * macs, 1 / 8, 3 / (3 * macs), 2, 20 / (3 * macs),
        4 * step_plan.floats + 1024),
        # Of a row and step: 20 draws, and the network for one row in twelve.
        Work("walk_back", "draw", N * 20, 1 + asked / 8, 0, 2 * asked, 1, 4 * chain_plan.floats + 8 * 512),
    ]  # fmt: skip


def narrow_net():
    """The 20-50-50-20 net with the default features of time."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    from contestants import Size, make_training

    return make_training(Size(20, (50, 50), 64), "numpy").model.net


def _widths(net) -> list[tuple[int, int]]:
    return [layer.shapes[f"{layer.name}/W"] for layer in net.dense]


def plans(net):
    """How the net lies in an H100's shared memory, in the step and in the chain."""
    from bdiff_np.kernels.mlp import mlp_plan

    limit = 227 << 10  # a group of the step has 32 rows up to a batch of 2^14
    return mlp_plan.largest(net, limit, (32, 16, 8, 4), True, mlp_plan.SUMS), mlp_plan.largest(
        net, limit, (64, 32, 16, 8, 4), False, 8 << 10
    )


# Measured on a card ---------------------------------------------------------------------------------------------------


def launches() -> dict[str, Callable[[], None]]:
    """What launches each kernel of `works` once, by name, on arrays that lie on the card. Needs CuPy and a GPU."""
    import cupy

    from bdiff_np import rng
    from bdiff_np.diffusion.bernoulli import make_chain
    from bdiff_np.kernels.bernoulli import bernoulli_cupy as family
    from bdiff_np.kernels.dense import dense_cupy as dense
    from bdiff_np.kernels.shared.cuda_grid import Parts, parts, pieces
    from bdiff_np.kernels.training import training_cupy as training
    from bdiff_np.rng import Key

    random = np.random.default_rng(0)
    f32 = lambda *shape: cupy.asarray(random.standard_normal(shape, dtype=np.float32))  # noqa: E731
    integers = lambda low, high, shape, dtype: cupy.asarray(random.integers(low, high, shape, dtype))  # noqa: E731
    law, key = family.Kernels(make_chain("paper", 2000, 0.5)).law, Key(1, rng.Q_NOISE, 1)
    packed, index = integers(0, 256, (B, -(-D // 8)), np.uint8), cupy.arange(B, dtype=np.int32)
    x0, x_t = (integers(0, 2, (B, D), np.uint8) for _ in range(2))
    t, t_long = integers(1, 2001, B, np.int64), cupy.empty(1 << 20, np.int64)
    logits, dlogits, bias_d, kl, kl_long = (
        f32(B, D),
        f32(B, D),
        f32(D),
        cupy.empty(B, np.float32),
        cupy.zeros(1 << 20, np.float32),
    )
    clock, one, losses = cupy.zeros(2, np.uint64), cupy.zeros(1, np.uint8), cupy.zeros(1 << 20, np.float32)
    logged, ticking = (
        cupy.ones(1 << 20, np.uint8),
        cupy.zeros(2, np.uint64),
    )  # a clock that goes on, for far fewer than 2**20 launches
    z, dy, film, y, bias = f32(B, H), f32(B, H), f32(B, 2 * H), f32(B, H), f32(H)
    odd_z, odd_dy, odd_film, odd_y, odd_bias = (
        f32(B, H - 1),
        f32(B, H - 1),
        f32(B, 2 * H - 2),
        f32(B, H - 1),
        f32(H - 1),
    )
    sums = Parts(cupy.empty(parts(B) * 2 * H, np.float32), parts(B), H)
    odd_sums, both = sums._replace(stride=H - 1), sums._replace(stride=2 * H)
    flat = [f32(P) for _ in range(5)]
    decayed, squares, norms, halted = (
        cupy.ones(P, np.uint8),
        cupy.ones(pieces(P), np.float32),
        cupy.ones(1, np.float32),
        cupy.zeros(1, np.int32),
    )
    rates = cupy.asarray(np.array([[1, 0.1, 0.001, 1e-6, 1, 1e-8, 0, 0.1]], np.float32))
    features, moments, x, f = f32(2001, F), f32(B, 2), f32(B, D), f32(B, F)
    a, b, c = f32(N, 128), f32(128, 128), f32(N, 128)
    groups = Parts(cupy.empty(128 * 128 * 128, np.float32), 128, 128 * 128)
    fixed, words = (x0, x_t, t), cupy.empty((64, N), np.uint64)
    return {
        "prior<256>": lambda: family.prior(law, key, 0, x_t),
        "draw_t<256>": lambda: training.draw_t(1, rng.TIME, clock, 2000, t_long),
        "unpack<256>": lambda: family.unpack(packed, index, x_t),
        "q_sample<256, float>": lambda: family.q_sample(law, x0, t, key, 0, x_t),
        "q_batch<256, float>": lambda: family.q_batch(
            law, SimpleNamespace(array=packed), index, B, t, 1, rng.Q_NOISE, clock, x0, x_t
        ),
        "kl_grad<256, float>": lambda: family.kl_grad(law, logits, bias_d, *fixed, one, clock, kl, dlogits),
        "p_flip<256, float>": lambda: family.p_flip(law, logits, x_t, t, dlogits),
        "p_sample<256, float>": lambda: family.p_sample(law, logits, bias_d, x_t, t, None, key, 0, x0),
        "finish<256, float>": lambda: training.finish(kl_long, logged, ticking, losses),
        "read<256, float>": lambda: family.read_into(x_t, t, features, None, x, f),
        "activate<float, 1>": lambda: dense.activate(odd_z, odd_bias, odd_film, "silu", odd_y),
        "activate<float, 4>": lambda: dense.activate(z, bias, film, "silu", y),
        "activate_backward<float, 1>": lambda: dense.activate_backward(
            odd_dy, odd_z, odd_bias, odd_film, "silu", odd_dy, odd_film, odd_sums
        ),
        "activate_backward<float, 4>": lambda: dense.activate_backward(dy, z, bias, film, "silu", dy, film, sums),
        "column_sums<float, 1>": lambda: dense.column_sums(odd_z, odd_sums),
        "column_sums<float, 4>": lambda: dense.column_sums(z, sums),
        "sum_parts<float>": lambda: dense.sum_parts(Parts(flat[0], 1, P), flat[1], squares),
        "norm<float>": lambda: dense.norm(squares, norms, clock, halted),
        "adamw<float>": lambda: dense.adamw(*flat, decayed, norms, rates, 1.0, clock),
        "layer_norm<float>": lambda: dense.layer_norm(z, bias, bias, 1e-5, y, moments),
        "layer_norm_backward<float>": lambda: dense.layer_norm_backward(dy, z, bias, moments, y, both),
        "keep_mask<256, float>": lambda: dense.keep_mask(key, 1 << 30, 1.5, y),
        "shuffle_words<256>": lambda: training.shuffle_words(1, rng.SHUFFLE, 1, words),
        "multiply<false, false, float>": lambda: dense.multiply(a, b, c),
        "multiply<false, true, float>": lambda: dense.multiply_right(a, b, c),
        "multiply<true, false, float>": lambda: dense.multiply_left(a, c, groups),
    }


# Without a card -------------------------------------------------------------------------------------------------------


def table() -> str:
    """Static figures of every kernel, as Markdown. Raises ImportError without the extra gpu-check."""
    sys.path.insert(0, str(ROOT / "tests"))
    from gpu import compiled, occupancy

    if compiled.missing():
        raise ImportError(compiled.missing())

    uses = {k.name: (k, use) for k, use in compiled.compile_all("90").items()}
    listed = works()
    blocks = occupancy.blocks(
        {w.kernel: (uses[w.kernel][1].registers, uses[w.kernel][1].shared + w.shared) for w in listed}
    )
    lines = [
        "| kernel | registers | shared, bytes | occupancy | widest load | of a | loads | bytes | operations | draws | "
        "bound | expected |",
        "|---|--:|--:|--:|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for w in listed:
        kernel, use = uses[w.kernel]
        seconds, bound = w.least()
        loads = [i for i in compiled.instructions(kernel.file, "90")[w.kernel] if i.startswith(("LDG", "LDS"))]
        widest = max((int(part) for i in loads for part in i.split(".") if part in ("64", "128")), default=32) // 8
        cells = (
            f"`{_short(w.kernel)}`", use.registers, use.shared + w.shared,
            f"{blocks[w.kernel] * 256 / 2048:.0%}", f"{widest} bytes", w.unit, f"{w.loads:.3g}", f"{w.bytes:.3g}",
            f"{w.operations:.3g}", f"{w.draws:.3g}", bound, f"{1e12 * seconds / w.count:.3g} ps",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _short(kernel: str) -> str:
    """Without the arguments of a template that are the same everywhere."""
    inside = [part for part in kernel.rstrip(">").partition("<")[2].split(", ") if part not in ("float", "256", "")]
    return kernel.partition("<")[0] + (f"<{', '.join(inside)}>" if inside else "")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    try:
        print(table())
    except ImportError as fault:
        print(fault, file=sys.stderr)
        sys.exit(2)
