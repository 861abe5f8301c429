"""The settings that belong to no guest: which guests there are, how long to train, and what is recorded on the way."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bdiff_np import rng
from bdiff_np.errors import SEEDS
from bdiff_np.settings import MOST, Count, Disagreements, Name, Settings

# Settings that --resume may change: what was computed before does not rest on them.
CHANGEABLE = (
    "training.epochs",
    "training.save_every_n_epochs",
    "training.save_every_minutes",
    "training.patience",
)


class ModelSettings(Settings):
    """The diffusion and its network."""

    family: Name = "bernoulli"
    """Diffusion family: the name of a file <family>_family.py in diffusion/."""
    net: Name = "mlp"
    """Network: the name of a file in nets/."""
    num_sample_steps: int = Field(default=1, ge=1, le=1_000_000)
    """Timesteps drawn per example and optimiser step."""


class TrainingSettings(Settings):
    """The optimiser, and what is recorded on the way."""

    epochs: int = Field(default=100, ge=1, le=10**12)
    """Number of epochs."""
    steps_per_epoch: Count | None = None
    """Optimiser steps per epoch; null: ceil(rows / batch_size) * ceil(T / num_sample_steps), 1000 at most."""
    tf32: bool = False
    """Whether a GPU may multiply with a 10-bit mantissa (TF32) in nets wider than 128: faster, less exact."""
    seed: int = Field(default=0, ge=0, le=SEEDS - 1)
    """Seed of all random words."""
    save_every_n_epochs: Count = 10
    """Epochs between checkpoints."""
    save_every_minutes: float | None = Field(default=10, gt=0, le=1e6)
    """Minutes after which a checkpoint is written within an epoch too; null: at the ends of epochs alone."""
    num_examples: int = Field(default=10, ge=1, le=10_000)
    """Rows in the fixed batch of samples drawn for the pictures."""
    num_val_samples: int = Field(default=1024, ge=0, le=MOST)
    """Rows sampled after an epoch, at most, to be looked up in train and val; 0 draws none."""
    val_batch_size: Count = 1024
    """Rows per batch while these are drawn; fewer than 1024 count as 1024, which draws the same rows faster."""
    sample_steps: Count | None = 100
    """Steps of the chain for samples drawn during training, T at most; null takes all T."""
    select: Literal["last", "best"] | None = None
    """Which checkpoint the run stands for; best: of the least validation bound; null: best from 30 held-out rows on."""
    patience: Count | Literal["never"] | None = None
    """Epochs without a better val bound until training stops; null: a quarter, 10 at least, if it is 2 % worse then."""

    @classmethod
    def disagreements(cls, model, training, data) -> Disagreements:
        if isinstance(training.patience, int) and training.select == "last":
            reason = "needs training.select: best (it is last); without it, leave patience out or null"
            yield (("training", "patience"), ("training", "select")), reason
        if training.epochs * (training.steps_per_epoch or 1) >= rng.STEPS:
            reason = f"are 2^32 steps or more with training.steps_per_epoch: {training.steps_per_epoch}; take fewer"
            yield (("training", "epochs"), ("training", "steps_per_epoch")), reason


class DataSettings(Settings):
    """How rows are read, and what is known of them."""

    batch_size: Count = 64
    """Rows per optimiser step."""
    val: Literal["auto", "none"] = "auto"
    """Held out where there is no val file; auto: a twentieth of 600 rows or more of train, by the seed; none: none."""
