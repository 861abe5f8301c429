"""The five compiled functions that a family fills into the fused step, the fused chain and the fused KL.

    fill(Law, read_row=..., q_sample=..., kl_grad=..., may_change=..., p_sample=...)

The fused paths call the functions of this file; Numba puts in their place those of the family that the type of `law`
belongs to. Beside them the fused paths ask of the family's `Kernels` on Numba:

    chain         diffusion.Chain
    law           a NamedTuple of arrays and numbers, of a class of the family's own: what the five functions know of
        the chain
    work          how many numbers of room the functions need for each element of a row
    blocks(D)     how many Philox blocks, of four words or sixteen bytes, a row's noise takes
    limits(t, D)  what `may_change` compares with at steps t (n,), an array (n, ...)

B rows of D elements; x0, x_t (B, D) of the data's dtype, t (B,) int64, out (B, M) float32. noise : philox_numba.Noise,
whose words (B, 4 blocks(D)) uint32 are drawn already, all rows in one go; what the family needs beside them, it draws
from the address.
"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from bdiff_np.kernels.dense import product_numba
from bdiff_np.kernels.mlp import mlp_numba


def read_row(law, t, x_t, out):
    """The first Task.inputs numbers of out: a row x_t (D,) as the network reads it, t as the network gets it."""


def q_sample(law, t, noise, x0, x_t):
    """x_t ~ q(x_t | x_0)."""


def kl_grad(law, t, out, x0, x_t, work, dout, kl):
    """dout (B, M), the gradient of the KL in nats; and the KL itself into kl (B,) float64, unless that is empty. work :
    (>= B D work,) float32"""


def may_change(law, limits, noise, x, may):
    """may (B,) uint8: whether x_{t-1} of a row of x (B, D) may differ from it, by its noise and the limits of t. 1 is
    always right."""


def p_sample(law, t, out, noise, work, x_t):
    """x_{t-1} ~ p(x_{t-1} | x_t), in the place of x_t."""


def can_fuse(net, kernels) -> bool:
    """Whether the fused paths can take a network and a family's kernels: a perceptron in float32, a family that fills
    the hooks, and a product to call."""
    return mlp_numba.fits(net) and kernels.law is not None and product_numba.exists()


def fill(Law, *, read_row, q_sample, kl_grad, may_change, p_sample) -> None:
    """The functions of a family, compiled by compiled_numba.njit, for all laws of the class `Law`."""
    here = globals()
    _fill(here["read_row"], Law, lambda law, t, x_t, out: read_row(law, t, x_t, out))
    _fill(here["q_sample"], Law, lambda law, t, noise, x0, x_t: q_sample(law, t, noise, x0, x_t))
    _fill(
        here["kl_grad"], Law, lambda law, t, out, x0, x_t, work, dout, kl: kl_grad(law, t, out, x0, x_t, work, dout, kl)
    )
    _fill(here["may_change"], Law, lambda law, limits, noise, x, may: may_change(law, limits, noise, x, may))
    _fill(here["p_sample"], Law, lambda law, t, out, noise, work, x_t: p_sample(law, t, out, noise, work, x_t))


def _fill(hook, Law, function) -> None:
    @overload(hook, jit_options={"_nrt": False}, strict=False)  # type: ignore[typeddict-unknown-key]
    def choose(law, *rest):
        return (
            function if isinstance(law, types.NamedTuple | types.NamedUniTuple) and law.instance_class is Law else None
        )
