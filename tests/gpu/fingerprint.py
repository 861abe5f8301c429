"""What the kernels give for fixed inputs, as a file: the same on a real card and on the stand-in, bits exactly, numbers
to rounding.

    python tests/gpu/fingerprint.py OUT.npz [--stand-in]       compared by benchmarks/gpu_check.py
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]


def main(out: str, stand_in: bool) -> None:
    import numpy as np

    from bdiff_np.backends import gpu

    if stand_in:
        from cuda_on_cpu import stand_in as cupy

        cupy.install()
        gpu.driver = lambda: gpu.Driver(13000, ("a stand-in",), "")
    from bdiff_np import rng, sample
    from bdiff_np.diffusion.bernoulli import make_chain
    from bdiff_np.kernels.bernoulli import bernoulli_cupy
    from bdiff_np.kernels.training import fused_step_cupy
    from bdiff_np.model import load_ops
    from bdiff_np.rng import Key
    from gpu.training import CASES, buffers, take, training

    found, ops, generator = {}, load_ops("cupy"), np.random.default_rng(0)
    B, D = 301, 21
    for name, pi in (("one", 0.3), ("per-bit", np.linspace(0.05, 0.95, D))):
        for predict in ("x0", "x_prev"):
            kernels = bernoulli_cupy.Kernels(make_chain("paper", 2000, pi), predict)
            x0, t = generator.integers(0, 2, (B, D)).astype(np.uint8), generator.integers(1, 2001, B)
            logits = (3 * generator.standard_normal((B, D))).astype(np.float32)
            x_t = kernels.q_sample(x0, t, Key(1, rng.Q_NOISE, 5), 2**33)
            values = {
                "q_sample": x_t,
                "prior": kernels.prior(B, D, Key(1, rng.PRIOR, 0)),
                "p_flip": kernels.p_flip(logits, x_t, t),
            }
            values["kl"], values["dlogits"] = kernels.kl_grad(logits, x0, x_t, t)
            found |= {f"{name} {predict} {key}": ops.to_host(value) for key, value in values.items()}

    class Card:
        step = fused_step_cupy

    for way in ("FusedSteps", "CapturedSteps", "five lines"):
        for case in ("plain", "odds_input", "pi-of-each-bit", "x_prev-no-skip", "deep"):
            job = take(training("cupy", **CASES[case]), way, Card)
            job.advance(10)
            found |= {f"{way} {case} {name}": array for name, array in buffers(job).items()}
    model = training("cupy").averaged
    found["rows"] = sample.draw(model, 2000, seed=1)
    np.savez_compressed(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], "--stand-in" in sys.argv)
