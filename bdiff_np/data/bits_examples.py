"""Commands that make rows of bits that obey a rule. Loaded for every `--help`, and so without what is large."""

from __future__ import annotations

from pathlib import Path

import click

from bdiff_np.commands import RUN, Command, said, seed_option


def make_data(out: Path, name: str, parameters: dict, length: int, *, force: bool, **options) -> str:
    """Writes RUN/train.txt, RUN/val.txt and, if there is none, RUN/config.yaml; says what it made. options : of
    generators.generate"""
    from bdiff_np.data import examples, generators
    from bdiff_np.data.bits import BitsSettings

    rule = generators.make_rule(name, **parameters)
    train, val = generators.generate(rule, length, **options)
    named = BitsSettings.model_validate({"rule": {"name": name, **parameters}}).rule
    values = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    text = CONFIG.format(rule=f"name: {name}, {values}", repeats=max(1, 512 // len(train)))
    return examples.write(out, train, val, ".txt", text, ("rule", named), force=force)


CONFIG = """\
model:
  T: 1000
  pi: data
  num_sample_steps: {repeats}
  hidden: [64, 64]
training:
  epochs: 20
  steps_per_epoch: 500
  lr: 4.0e-3
data:
  batch_size: 512
  rule: {{{rule}}}
"""


def _command(name: str, parameter: str, what: str, default: int) -> click.Command:
    @click.command(
        name,
        cls=Command,
        help=f"{what}\n\n\b\npython cli.py data {name} --length 20 --{parameter} {default} --out runs/mine",
    )
    @click.option("--length", type=click.IntRange(1), default=20, show_default=True, help="Length of a row.")
    @click.option(
        f"--{parameter}",
        "value",
        type=click.IntRange(1),
        default=default,
        show_default=True,
        help="The rule's parameter.",
    )
    @click.option("--out", type=RUN, required=True, help="Run folder to write to; it is made if need be.")
    @click.option(
        "--val-fraction",
        type=click.FloatRange(0, 1),
        default=0.05,
        show_default=True,
        help="Share of the rows that is held out.",
    )
    @click.option(
        "--hold-out",
        type=click.IntRange(1),
        multiple=True,
        help="Hold out row number K (from 1) instead. May be repeated.",
    )
    @click.option(
        "--rows", "num_rows", type=click.IntRange(1), help="Draw so many different rows.  [default: all valid ones]"
    )
    @click.option("--force", is_flag=True, help="Overwrite train.txt and val.txt.")
    @seed_option()
    def command(length, value, out, val_fraction, hold_out, num_rows, force, seed):
        choice = {"val_fraction": val_fraction, "hold_out": hold_out or None, "num_rows": num_rows, "seed": seed}
        click.echo(said(make_data(out, name, {parameter: value}, length, force=force, **choice)))

    return command


COMMANDS = (
    _command("heartbeat", "period", "A 1 at every PERIOD-th bit, in all phases.", 5),
    _command("repeating", "block", "Any BLOCK values, repeated to the end.", 10),
    _command("multiples", "k", "Multiples of K as binary numbers, highest bit first.", 5),
)
