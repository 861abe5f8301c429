"""config.yaml: what can be set, and every fault of it at once, each as file:line:column.

The classes are the reference: a field's type, limits and default stand in its line, its meaning and unit below it. `load` reads a file
and the options `--set section.key=value`; `dump` writes the resolved configuration, which `load` reads back to an equal one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bdiff_np.config import config_lines, yaml_lines

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # of a Python file; never a path


class Section(BaseModel):
    # strict: an int field refuses true, 3.0 and "3"; a float field takes an int. Lists become tuples only where a field says strict=False.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Model(Section):
    """The diffusion and its network."""

    family: Name = "bernoulli"
    """Diffusion family: the name of a file in diffusion/."""
    T: int = Field(default=2000, ge=1, le=100_000)
    """Number of steps of the chain."""
    num_sample_steps: Count = 1
    """Timesteps drawn per example and optimiser step."""
    schedule: Literal["paper", "linear", "quadratic", "constant", "cosine", "sigmoid"] = "paper"
    """Noise schedule beta_t; paper is 1/(T - t + 1)."""
    pi: Annotated[float, Field(ge=1e-9, le=1 - 1e-9)] | Literal["data"] = 0.5
    """Stationary probability that a bit is 1; data takes the mean of each bit over train."""
    predict: Literal["x0", "x_prev"] = "x0"
    """What the logits stand for: the clean bit x_0, or the bit one step earlier, x_{t-1}."""
    skip: bool = True
    """Whether x_t's own evidence is added to the net's output."""
    net: Name = "mlp"
    """Network: the name of a file in nets/."""
    hidden: tuple[Count, ...] = Field(default=(100,), min_length=1, strict=False)
    """Widths of the hidden layers, in units, from the input to the output."""
    activation: Literal["relu", "silu", "gelu", "tanh", "sigmoid"] = "silu"
    """Non-linearity after each hidden layer."""
    time: Literal["fourier", "bumps", "readout"] = "fourier"
    """How t enters the net: Fourier features, Gaussian bumps in t, or one read-out per timestep."""
    time_features: int = Field(default=16, ge=2, multiple_of=2)
    """Number of features of t, for fourier and bumps."""
    odds_input: bool = False
    """Whether the net also reads each bit weighted by the log odds that it carries at t."""
    residual: bool = False
    """Whether hidden layers are residual blocks with LayerNorm; all hidden widths are then equal."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a hidden unit is dropped in training."""


class Training(Section):
    """The optimiser, and what is recorded on the way."""

    epochs: Count = 100
    """Number of epochs."""
    steps_per_epoch: Count | None = None
    """Optimiser steps per epoch; null: every row meets T timesteps, ceil(rows / batch_size) * ceil(T / num_sample_steps), 1000 at most."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW, per optimiser step."""
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0)
    """Optimiser steps in which the learning rate rises linearly from 0."""
    weight_decay: float = Field(default=0.02, ge=0)
    """Decoupled weight decay of AdamW, as a share of the weights per unit of learning rate."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay per optimiser step of the running average of the weights; 0 switches it off."""
    clip_thresh: float | None = Field(default=1.0, gt=0)
    """Largest global norm of the gradient of the loss in nats per bit; null does not clip."""
    bce_weight: float | None = Field(default=None, ge=0)
    """Weight of the auxiliary cross entropy of x_0, in nats per nat of the bound; null is 1 with predict x0, else 0."""
    tf32: bool = False
    """Whether a GPU may round what it multiplies to 10 bits of mantissa (TF32) in nets wider than 128: faster, less exact."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of all random words."""
    save_every_n_epochs: Count = 10
    """Epochs between checkpoints."""
    num_examples: Count = 10
    """Rows in the fixed batch of samples drawn for the pictures."""
    num_val_samples: int = Field(default=1024, ge=0)
    """Rows sampled per epoch to be looked up in train and val; 0 draws none."""
    val_batch_size: Count = 1024
    """Rows per batch while these are drawn; fewer than 1024 count as 1024, which draws the same rows faster."""
    sample_steps: Count | None = 100
    """Steps of the chain for samples drawn during training, T at most; null takes all T."""
    select: Literal["last", "best"] = "last"
    """Which checkpoint the run stands for; best has the least validation bound."""
    patience: Count | None = None
    """Epochs without a better validation bound after which training stops; null never stops early. Only with select best."""


class Heartbeat(Section):
    """A one at every period-th bit, in any phase."""

    name: Literal["heartbeat"] = "heartbeat"
    """The rule."""
    period: Count
    """Distance between ones, in bits."""


class Repeating(Section):
    """One block of bits, repeated."""

    name: Literal["repeating"] = "repeating"
    """The rule."""
    block: Count
    """Length of the repeated block, in bits."""


class Multiples(Section):
    """Multiples of k as binary numbers, most significant bit first."""

    name: Literal["multiples"] = "multiples"
    """The rule."""
    k: Count
    """Divisor of the number that a row spells."""


Rule = Heartbeat | Repeating | Multiples


class Data(Section):
    """How rows are read, and what is known of them."""

    batch_size: Count = 64
    """Rows per optimiser step."""
    shape: tuple[Count, Count] | None = Field(default=None, strict=False)
    """Height and width in bits, where rows are images; for the pictures."""
    rule: Rule | None = Field(default=None, discriminator="name")
    """The rule that valid rows follow, where one is known."""


class Config(Section):
    """All of config.yaml. Built from Python, it raises pydantic's ValidationError; `load` raises InputError."""

    model: Model = Model()
    """The diffusion and its network."""
    training: Training = Training()
    """The optimiser, and what is recorded on the way."""
    data: Data = Data()
    """How rows are read, and what is known of them."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Config:
        faults = [f"{'.'.join(paths[0])}: {reason}" for paths, reason in _disagreements(self.model, self.training)]
        if faults:
            raise ValueError("; ".join(faults))
        return self


SECTIONS: dict[str, type[Section]] = {"model": Model, "training": Training, "data": Data}


def load(path: str | os.PathLike[str], sets: Sequence[str] = ()) -> Config:
    """The configuration in the file `path`, changed by `sets`: texts such as "training.lr=1e-3", the later one winning.

    Raises
    ------
    InputError : one line per fault, all of them, as `config.yaml:11:15: training.batch_size: ...`; a fault of an option begins with
        `--set ...`. A text that is not YAML has one fault, the first.
    """
    return Config(**config_lines.read(os.fspath(path), sets, SECTIONS, _disagreements))


def place(path: str | os.PathLike[str], setting: str) -> str:
    """Where a setting such as "data.shape" stands in the file, as file:line:column; the file alone where it does not stand there."""
    try:
        found = yaml_lines.parse(open(path, encoding="utf-8-sig").read()).values.get(tuple(setting.split(".")))
    except (OSError, ValueError):
        found = None
    name = os.fspath(path) if os.fspath(path) != os.devnull else "config.yaml"
    return f"{name}:{found[0]}:{found[1]}" if found else name


def dump(config: Config) -> str:
    """The whole configuration as YAML, defaults included, in the order of the schema."""
    return yaml_lines.dump(config.model_dump())


def _disagreements(model: Model, training: Training, **_: Any) -> Iterator[tuple[tuple[tuple[str, str], ...], str]]:
    """Faults of fields that are right on their own: the paths that take part, the one to blame first, and the reason."""
    if model.residual and len(set(model.hidden)) > 1:
        yield (("model", "hidden"), ("model", "residual")), f"widths must all be equal with residual: true (got {list(model.hidden)})"
    if training.bce_weight and model.predict != "x0":
        reason = f"must be 0 with model.predict: {model.predict}, for there is no x_0 to compare (got {training.bce_weight})"
        yield (("training", "bce_weight"), ("model", "predict")), reason
    if training.patience is not None and training.select != "best":
        reason = f"needs training.select: best (it is {training.select}); without it, leave patience out or null"
        yield (("training", "patience"), ("training", "select")), reason
