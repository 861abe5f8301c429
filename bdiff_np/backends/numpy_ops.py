"""The operations on NumPy, which say what those of every back end do; backends.Ops is the contract."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from bdiff_np import memory, rng
from bdiff_np.kernels.dense.dense_codes import LAYER_NORM_EPS, drop_threshold

name, on_device = "numpy", False
# width up to which a second thread loses more on a busy machine than it gains on an idle one (benchmarks/RESULTS.md)
ONE_THREAD = 256
ACTIVATIONS = ("relu", "silu", "gelu", "tanh", "sigmoid")

# glibc hands arrays of more than 128 KiB back to the system as soon as they are freed, and fetches the next one page by
# page, until it has seen a large one freed; then it keeps all up to that size (mallopt(3), M_MMAP_THRESHOLD). This one,
# just below the largest that it learns from, is never touched, and saves up to half the time of a step.
np.empty((1 << 25) - (1 << 16), np.uint8)


@contextmanager
def threads(width: int):
    """While it lasts, BLAS uses one thread for nets up to ONE_THREAD wide, which on a busy machine is several times
    faster."""
    if width > ONE_THREAD:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield


@lru_cache(1)
def _controller():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def reserve(need: int, what: str, fix: str) -> None:
    """Raises InputError, before anything is allocated, where `need` bytes for `what` are more than a GPU has free; on
    the host, where they are more than the machine has."""
    memory.check(need, what, fix)


def asarray(host: np.ndarray, dtype=None) -> np.ndarray:
    """The array on this back end."""
    return np.ascontiguousarray(host, dtype)


def to_host(array: np.ndarray) -> np.ndarray:
    """The array as NumPy's."""
    return array


def wait() -> None:
    """Returns when all that was asked for is done; on the host it is."""


def zeros(shape, dtype) -> np.ndarray:
    return np.zeros(shape, dtype)


def empty(shape, dtype) -> np.ndarray:
    """An array with anything in it."""
    return np.empty(shape, dtype)


def where(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a where mask is set, else b: arrays of one shape."""
    return np.where(mask, a, b)


def allow_tf32(allowed: bool) -> None:
    """Whether a GPU may round what it multiplies to a 10-bit mantissa; on the host there is nothing to allow."""


def versions() -> dict[str, str]:
    """Versions of what is only known once it is loaded: nothing here."""
    return {}


def check_net(net) -> None:
    """Raises InputError for a net that the back end cannot run; NumPy runs all."""


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a @ b, into `out` if given."""
    return np.matmul(a, b, out=out)


def activate(
    z: np.ndarray, bias: np.ndarray, activation: str | None, film: np.ndarray | None = None
) -> tuple[np.ndarray, tuple]:
    """act((z + bias) * (1 + scale) + shift): what follows a matrix product, in one operation. Derivation, section 12.

    z : (B, H). bias : (H,). activation : one of ACTIVATIONS, or None for the identity.
    film : (B, 2H), scale beside shift, or None
    """
    u = z + bias
    H = u.shape[1]
    y = u if film is None else u * (1 + film[:, :H]) + film[:, H:]
    if activation is None:
        return y, (u, film, None)
    y, slope = _ACTIVATION[activation](y)
    return y, (u, film, slope)


def activate_backward(dy: np.ndarray, tape: tuple, dbias: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns dz (B, H) and dfilm (B, 2H) or None; the gradient of the bias goes into `dbias`, (H,)."""
    u, film, slope = tape
    dz = dy if slope is None else dy * slope
    dfilm = None
    if film is not None:
        H = u.shape[1]
        dfilm = np.empty_like(film)
        np.multiply(dz, u, out=dfilm[:, :H])
        dfilm[:, H:] = dz
        dz = dz * (1 + film[:, :H])
    np.sum(dz, axis=0, out=dbias)
    return dz, dfilm


def _relu(z):
    return np.maximum(z, 0), (z > 0).astype(z.dtype)


def _tanh(z):
    y = np.tanh(z)
    return y, 1 - y * y


def _sigmoid(z):
    y = 0.5 + 0.5 * np.tanh(0.5 * z)
    return y, y * (1 - y)


def _silu(z):
    s = 0.5 + 0.5 * np.tanh(0.5 * z)
    y = z * s
    return y, s + y * (1 - s)


def _gelu(z):
    """In the tanh form of Hendrycks and Gimpel 2016, which needs no error function."""
    c = (2 / np.pi) ** 0.5
    w = np.tanh(z * (c + c * 0.044715 * z * z))
    return 0.5 * z * (1 + w), 0.5 * (1 + w) + 0.5 * z * (1 - w * w) * (c + 3 * c * 0.044715 * z * z)


_ACTIVATION = {"relu": _relu, "silu": _silu, "gelu": _gelu, "tanh": _tanh, "sigmoid": _sigmoid}


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Each row to mean 0 and variance 1, times gain (H,), plus shift (H,)."""
    centred = x - x.mean(1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(1, keepdims=True) + LAYER_NORM_EPS)
    unit = centred * rstd
    return unit * gain + shift, (unit, rstd, gain)


def layer_norm_backward(dy: np.ndarray, tape: tuple, dgain: np.ndarray, dshift: np.ndarray) -> np.ndarray:
    """Returns dx; the gradients of gain and shift go into `dgain` and `dshift`. Derivation, section 12."""
    unit, rstd, gain = tape
    np.sum(dy * unit, axis=0, out=dgain)
    np.sum(dy, axis=0, out=dshift)
    dunit = dy * gain
    return rstd * (dunit - dunit.mean(1, keepdims=True) - unit * (dunit * unit).mean(1, keepdims=True))


def keep_mask(key: rng.Key, shape: tuple[int, int], rate: float, dtype) -> np.ndarray:
    """Dropout's factor (B, H): 0 with probability rate, else 1 / (1 - rate), from the random words of a key."""
    kept = np.dtype(dtype).type(1 / (1 - rate))
    return (~rng.below(key, np.uint64(drop_threshold(rate)), *shape)).astype(dtype) * kept


def norm(flat: np.ndarray, halted: np.ndarray | None = None):
    """Euclidean length of a flat buffer: a number of Python, or on a device an array (1,); not finite where its square
    is beyond the buffer's dtype.

    halted : (1,) int32. Set where the length is not finite; once set, the length is nan.
    """
    return finite_or_halted(float(np.sqrt(np.dot(flat, flat))), halted)


def finite_or_halted(length: float, halted: np.ndarray | None) -> float:
    """The length; nan once one was not finite."""
    if halted is not None:
        halted[0] |= not np.isfinite(length)
    return float("nan") if halted is not None and halted[0] else length


def clipped(scale: float, norm: float, clip: float) -> float:
    """The factor on a gradient of this length that scales it, and cuts it to the length `clip`."""
    return scale * (1.0 if norm * scale <= clip else clip / (norm * scale))


def adamw(
    params, grads, m, v, ema, decayed, norm, *, clip, lr, scale, beta1, beta2, eps, weight_decay, ema_decay, step
) -> None:
    """One AdamW step (Loshchilov and Hutter 2019) with its moving average of the weights, on flat buffers of one dtype,
    in place.

    decayed : (P,) 1 where weight decay applies, else 0. norm : of the gradient, as `norm` gives it; where it is not
        finite, nothing happens
    clip : largest length of the scaled gradient, inf for any. scale : factor on the gradient. step : counted from 1
    """
    if not np.isfinite(norm * scale):
        return
    g = grads * grads.dtype.type(clipped(scale, norm, clip))
    m += (1 - beta1) * (g - m)
    g *= g
    v += (1 - beta2) * (g - v)
    np.sqrt(v, out=g)
    g *= 1 / (1 - beta2**step) ** 0.5
    g += eps
    np.divide(m, g, out=g)
    g *= lr / (1 - beta1**step)
    if weight_decay:
        params *= 1 - lr * weight_decay * decayed
    params -= g
    ema += (1 - ema_decay) * (params - ema)
