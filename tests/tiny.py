"""A training of a second or less, for the tests that need a whole one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from bdiff_np import cli, config, rng
from bdiff_np.data import generators
from bdiff_np.data.bits import Bits
from bdiff_np.diffusion import bernoulli
from bdiff_np.model import Model
from bdiff_np.rng import Key
from bdiff_np.runfolder import rundir
from bdiff_np.train import Training

D, PERIOD = 8, 4
HEARTBEATS = generators.make_rule("heartbeat", period=PERIOD).rows(D)  # (4, 8)
TRAIN, VAL = Bits.from_array(HEARTBEATS[:3]), Bits.from_array(HEARTBEATS[3:])


def settings(**values) -> config.Config:
    """A small configuration, changed by names such as T=7, lr=0.1, batch_size=2."""
    chosen = {
        "T": 20,
        "hidden": (8,),
        "time_features": 4,
        "epochs": 6,
        "steps_per_epoch": 10,
        "warmup_steps": 5,
        "lr": 0.02,
    }
    chosen |= {
        "bce_weight": 0.0,
        "weight_decay": 0.0,
        "ema": 0.999,
        "clip_thresh": 1.0,
        "activation": "silu",
        "time": "fourier",
    }
    chosen |= {"num_val_samples": 16, "num_examples": 3, "save_every_n_epochs": 1, "batch_size": 2} | values
    schema = config.schema()
    sections = {
        name: {k: v for k, v in chosen.items() if k in section.model_fields}
        for name, section in schema.sections.items()
    }
    assert sum(map(len, sections.values())) == len(chosen), "a name that no section has"
    return schema.Config(**sections)


def build(config: config.Config, D: int, pi, **options) -> Model:
    """An untrained model of Bernoulli diffusion; pi : () or (D,). options : of Model.build"""
    return Model.build(config, D, bernoulli.make_chain(config.model.schedule, config.model.T, pi), **options)


def model(dtype=np.float32, pi=0.25, D: int = D, **values) -> Model:
    """An untrained model with the first parameters of its seed."""
    built = build(settings(**values), D, np.asarray(pi), dtype=dtype)
    built.params.fill(built.net.init(built.config.training.seed))
    return built


def definition(job: Training, step: int) -> dict[str, np.ndarray]:
    """The gradient of a step's loss in float64, from diffusion/bernoulli.py and the network's own backward on NumPy."""
    chain, config, to_host = job.model.chain, job.model.config, job.model.ops.to_host
    exact = build(config, job.model.D, chain.pi, dtype=np.float64)
    exact.params.flat[...] = to_host(job.model.params.flat)
    x0, t = (to_host(array) for array in job.batch(step))
    x_t = bernoulli.q_sample(chain, x0, t, rng.draws(Key(job.seed, rng.Q_NOISE, step), *x0.shape))
    logits, tape = exact.net.forward(exact.ops, exact.params, x_t, t, Key(job.seed, rng.Q_NOISE, step))
    if config.model.skip:
        logits = logits + bernoulli.evidence(chain, config.model.predict, x_t, t)
    dlogits = bernoulli.kl(chain, config.model.predict, logits, x0, x_t, t)[1]
    dlogits += config.training.bce_weight / chain.T * (bernoulli.sigmoid(logits) - x0)
    # of the bound in nats per bit: T times the mean over the batch, over D
    return {
        name: g * chain.T / x0.size for name, g in exact.net.backward(exact.ops, exact.params, tape, dlogits).items()
    }


def make_run(folder: Path, code: str | None = None, **values) -> Path:
    """A run folder with heartbeat rows, settings and, if given, a network of its own."""
    folder.mkdir(parents=True)
    TRAIN.write(folder / "train.txt")
    VAL.write(folder / "val.txt")
    (folder / "config.yaml").write_text(
        config.dump(settings(**{"rule": {"name": "heartbeat", "period": PERIOD}, **values}))
    )
    if code is not None:
        (folder / "reverse_model.py").write_text(code)
    return folder


def invoke(*arguments):
    """A command in this process, stdout and stderr kept apart; a fault that is no exit raises here."""
    try:
        runner = CliRunner(mix_stderr=False)  # click before 8.2
    except TypeError:
        runner = CliRunner()
    found = runner.invoke(cli.main, [str(a) for a in arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def newest(run: Path) -> Path:
    return rundir.all_results(run)[-1]


# A network of its own: y = x W_1 -> tanh -> W_2, with the signal alpha_bar_t as one more input.
NET = """
import numpy as np


class ReverseModel:
    def __init__(self, D, T, alpha_bar):
        self.alpha_bar, H = alpha_bar, 6
        self.shapes = {"W1": (D + 1, H), "b1": (H,), "W2": (H, D), "b2": (D,)}

    def init(self, generator):
        start = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        start["W1"] = generator.standard_normal(self.shapes["W1"]) / self.shapes["W1"][0] ** 0.5
        return start

    def forward(self, ops, params, x_t, t):
        x = np.concatenate([2.0 * x_t - 1, self.alpha_bar[t][:, None]], 1).astype(params["W1"].dtype)
        h, tape = ops.activate(ops.matmul(x, params["W1"]), params["b1"], "tanh")
        return ops.matmul(h, params["W2"]) + params["b2"], (x, h, tape)

    def backward(self, ops, params, tape, dlogits):
        x, h, inner = tape
        db1 = np.empty_like(params["b1"])
        dz, _ = ops.activate_backward(ops.matmul(dlogits, params["W2"].T), inner, db1)
        return {"W1": ops.matmul(x.T, dz), "b1": db1, "W2": ops.matmul(h.T, dlogits), "b2": dlogits.sum(0)}
"""
