"""What is known once: formulas and numbers that two languages need are held to the definition, each by its name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import compile

from bdiff_np import rng
from bdiff_np.diffusion import bernoulli
from bdiff_np.kernels.bernoulli import bernoulli_codes, bernoulli_numba, bernoulli_numpy
from bdiff_np.kernels.bernoulli.bernoulli_tables import tables
from bdiff_np.kernels.dense import dense_codes
from bdiff_np.kernels.shared import cuda_grid
from bdiff_np.kernels.shared.cuda_source import layout, source

KERNELS = Path(__file__).parent.parent / "kernels"
T, D = 40, 6
NAMES = ("agree", "disagree", "not_agree", "not_disagree", "gap", "evidence")
LOOK_UP = """
extern "C" __global__ void columns(Law<double> law, const u8 *x_t, const int *t, double *out, int B) {
  for (int i = 0; i < B * law.D; ++i) {
    const Columns<double> c = look_up(law, t[i / law.D], int(x_t[i]), i % law.D);
    out[i] = c.agree, out[B * law.D + i] = c.disagree, out[2 * B * law.D + i] = c.not_agree;
    out[3 * B * law.D + i] = c.not_disagree, out[4 * B * law.D + i] = c.gap, out[5 * B * law.D + i] = c.own;
  }
}"""


def of_numpy(chain, predict, x_t, t):
    return np.stack(bernoulli_numpy.Kernels(chain, predict, dtype=np.float64)._rows(x_t, t))


def of_numba(chain, predict, x_t, t):
    columns = np.empty((6, x_t.size))
    bernoulli_numba.look_up(bernoulli_numba.law(chain, predict, True, 0.0, np.float64), t, x_t, columns, True)
    return columns.reshape(6, *x_t.shape)


def of_cuda(chain, predict, x_t, t):
    host, per_bit = tables(chain, predict), chain.pi.ndim > 0
    table = np.concatenate([host.steps.ravel(), host.pi.ravel()]) if per_bit else host.table.ravel()
    noise, out = np.concatenate([host.lost, host.pi_words]), np.empty((6, *x_t.shape))
    law = layout("bernoulli.cuh", "Law", "d")
    form = bernoulli_codes.PER_BIT * per_bit + bernoulli_codes.X_PREV * (predict == "x_prev")
    given = np.array([(noise.ctypes.data, table.ctypes.data, chain.T, x_t.shape[1], form, 0.0)], law)
    kernel = compile.RawModule(code=source("bernoulli.cu") + LOOK_UP).get_function("columns")
    kernel((1,), (1,), (given, x_t, t.astype(np.int32), out, np.int32(len(x_t))))
    return out


FORMS = {"numpy": of_numpy, "numba": of_numba, "cuda": of_cuda}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("predict", ["x0", "x_prev"])
@pytest.mark.parametrize("pi", [0.3, np.linspace(0.02, 0.98, D)], ids=["one", "per-bit"])
def test_the_flip_law_is_the_definitions(form, predict, pi):
    """bernoulli.q_flip and bernoulli.evidence, every column at every t for both values of a bit, in float64."""
    chain = bernoulli.make_chain("paper", T, pi)
    t = np.repeat(np.arange(1, T + 1), 2)
    x_t = np.repeat(np.tile([[0], [1]], (T, 1)).astype(np.uint8), D, axis=1)
    columns = *bernoulli.q_flip(chain, x_t, t), bernoulli.evidence(chain, predict, x_t, t)
    found = FORMS[form](chain, predict, x_t, t)
    for name, column, expected in zip(NAMES, found, columns, strict=True):
        np.testing.assert_allclose(column, np.broadcast_to(expected, column.shape), rtol=1e-12, err_msg=name)


def constants() -> dict[str, list[float]]:
    """Named numbers of all .cu and .cuh files: name -> each value that it has."""
    values: dict[str, list[float]] = {}
    for path in (path for path in KERNELS.glob("*/*") if path.suffix in (".cu", ".cuh")):
        text = re.sub(r"//.*", "", path.read_text())
        for line in re.findall(r"^constexpr \w+ ([A-Z][^;]*);", text, re.MULTILINE):
            for name, value in re.findall(r"(\w+) = ([-\d.eE]+)f?(?=,|$)", line):
                values.setdefault(name, []).append(float(value))
        for line in re.findall(r"^enum \w+ \{ ([^}]*) \};", text, re.MULTILINE):
            for k, name in enumerate(line.split(", ")):
                name, _, value = name.partition(" = ")
                values.setdefault(name, []).append(float(value or k))
    return values


def test_numbers_of_cuda_are_those_of_python():
    """Every constant of CUDA C that has a namesake in Python has its value; all of these files have some."""
    modules = (rng, bernoulli_codes, dense_codes, cuda_grid)
    found = constants()
    for module in modules:
        names = [n for n, value in vars(module).items() if n in found and isinstance(value, int | float)]
        assert names, module
        for name in names:
            np.testing.assert_allclose(found[name], getattr(module, name), rtol=1e-7, err_msg=name)
    named = {n for module in modules for n, value in vars(module).items() if isinstance(value, int | float)}
    assert {"LOW", "NEAR_LOW", "NEAR_HIGH", "MARGIN", "PER_BIT", "SILU", "TIME", "P_NOISE", "SIDE"} <= named & set(
        found
    )
