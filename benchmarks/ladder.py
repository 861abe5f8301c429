"""What a setting is worth: trains variants of a run and measures each one's excess over the exact optimum.

    python benchmarks/ladder.py runs/heartbeat_paper "" "training.bce_weight=0" "model.hidden=[50,50] training.lr=1e-2"

Each argument is one variant: settings as in --set, separated by blanks; "" is the run as it stands. The run's
configuration must name the rule of its data, and the rows must be few enough for the oracle (evaluate.LISTED). Nothing
is written.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from bdiff_np import config, evaluate
from bdiff_np.diffusion import bernoulli, bernoulli_floor
from bdiff_np.runfolder import opening


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("variants", nargs=-1)
@click.option("--seed", default=0, show_default=True, help="Seed of the trainings.")
@click.option(
    "--all", "held_out", is_flag=True, help="Measure on train and val rows together, not on the train rows alone."
)
def main(run: Path, variants: tuple[str, ...], seed: int, held_out: bool):
    """Train VARIANTS of RUN and print the excess of each over the exact optimum, in bits."""
    click.echo("| variant | steps | training | excess, bits |\n|---|---|---|---|")
    for variant in variants or ("",):
        settings = config.load(run / "config.yaml", (*variant.split(), f"training.seed={seed}"))
        job = opening.prepare(run, settings, backend="numpy")
        start = time.perf_counter()
        with job.training.model.threads, np.errstate(over="ignore", invalid="ignore"):
            for _ in range(job.training.total_steps):
                job.training.step()
        seconds = time.perf_counter() - start
        model, chain = job.training.averaged, job.training.model.chain
        population = model.kind.population(settings.data, job.train_rows, job.val_rows if held_out else None)

        def logits(x_t, t, model=model, chain=chain):
            return model.output(x_t, t) + bernoulli.evidence(chain, "x0", x_t, t)

        value, error = (nats / evaluate.LN2 for nats in bernoulli_floor.excess(chain, population, logits))
        click.echo(
            f"| {variant or 'as configured'} | {job.training.total_steps} | {seconds:.0f} s | {value:.4f} +- "
            f"{error:.4f} |"
        )


if __name__ == "__main__":
    main()
