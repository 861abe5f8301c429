"""Commands that draw points from the usual laws in the plane. Loaded for every `--help`, and so without what is
large."""

from __future__ import annotations

import math
from pathlib import Path

import click

from bdiff_np.commands import RUN, Command, said, seed_option


def make_data(
    out: Path, name: str, rows: int, val_rows: int, *, noise: float | None, standardize: bool, seed: int, force: bool
) -> str:
    """Writes RUN/train.npy, RUN/val.npy and, if there is none, RUN/config.yaml; says what it made."""
    from bdiff_np.data import examples
    from bdiff_np.data.points import LawSettings, Points
    from bdiff_np.data.points_generators import Law

    law = Law(name, noise, standardize)
    train = Points(law.draw(rows, seed))
    val = Points(law.draw(val_rows, seed, part=1)) if val_rows else None
    named = LawSettings(name=name, noise=law.noise, standardize=standardize)  # type: ignore[arg-type]
    text = CONFIG.format(law=f"name: {name}, noise: {law.noise!r}, standardize: {str(standardize).lower()}")
    made = examples.write(out, train, val, ".npy", text, ("law", named), force=force)
    if law.entropy is None:
        return made
    bits = law.entropy / math.log(2)
    return f"{made}\nno bound lies below the entropy, {bits:.4f} bits ({law.entropy:.4f} nats) a point"


CONFIG = """\
model:
  family: gaussian
  waves: 64
  hidden: [128, 128, 128]
training:
  epochs: 20
  steps_per_epoch: 2000
  lr: 2.0e-3
  weight_decay: 0
  num_examples: 500
data:
  batch_size: 512
  law: {{{law}}}
"""


def _command(name: str, what: str) -> click.Command:
    @click.command(
        name,
        cls=Command,
        help=f"{what}\n\n\b\npython cli.py data {name} --rows 200000 --out runs/my_{name.replace('-', '_')}",
    )
    @click.option("--rows", type=click.IntRange(2), default=200000, show_default=True, help="Points to train on.")
    @click.option(
        "--val-rows", type=click.IntRange(0), default=10000, show_default=True, help="Points that are held out."
    )
    @click.option(
        "--noise",
        type=click.FloatRange(0),
        help="Standard deviation of the normal noise of each coordinate.  [default: the usual one]",
    )
    @click.option("--standardize", is_flag=True, help="Give each coordinate mean 0 and variance 1, by the law's own.")
    @click.option("--out", type=RUN, required=True, help="Run folder to write to; it is made if need be.")
    @click.option("--force", is_flag=True, help="Overwrite train.npy and val.npy.")
    @seed_option()
    def command(rows, val_rows, noise, standardize, out, force, seed):
        made = make_data(out, name, rows, val_rows, noise=noise, standardize=standardize, seed=seed, force=force)
        click.echo(said(made))

    return command


COMMANDS = (
    _command("swiss-roll", "Points of a spiral strip, seen from its side."),
    _command("8gaussians", "Eight round clusters on a circle."),
    _command("2spirals", "Two spiral arms."),
    _command("checkerboard", "Points of every other square of a board, without noise."),
    _command("rings", "Four rings around one centre."),
    _command("pinwheel", "Five bent wings."),
    _command("moons", "Two half circles that reach into each other."),
    _command("circles", "A circle within a circle."),
)
