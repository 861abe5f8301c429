"""The commands: parse, call, print. stdout is for results, stderr for progress and faults; a fault of the input leaves
with exit code 2."""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from pathlib import Path

import click

from bdiff_np import __version__, guests
from bdiff_np.commands import RUN, Commands, said, seed_option
from bdiff_np.errors import InputError
from bdiff_np.runfolder.progress import progress


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="bdiff_np")
def main():
    """Diffusion models for binary data and for points: train, sample, evaluate.

    \b
    python cli.py train runs/heartbeat_paper            train a run folder
    python cli.py sample runs/heartbeat_paper -n 5      draw rows from its newest results
    python cli.py evaluate runs/heartbeat_paper         its bound on the log likelihood, in bits

    TARGET is a checkpoint, a results folder, or a run folder (its newest results); left out, the newest results under
    runs/.
    """


def _target(target: Path | None):
    """The checkpoint a target means; says on stderr which it took when none was named."""
    from bdiff_np.runfolder import rundir

    source = rundir.resolve(target)
    if source.named != "checkpoint":
        click.echo(f"using {source.checkpoint}", err=True)
    return source


def _open(source, backend: str, choose):
    """The model of a checkpoint on a back end; for auto, `choose` tells which, and stderr says it with the reason."""
    from bdiff_np.backends.auto import AUTO
    from bdiff_np.model import Model

    if backend != AUTO:
        return Model.open(source, backend=backend)
    model = Model.open(source)
    choice = choose(model)
    if choice.backend != model.ops.name:
        click.echo(f"back end {choice.backend} (auto: {choice.reason})", err=True)
    return model.on(choice.backend)


def _as_options(text: str) -> str:
    """What the sampler says of arguments in Python, as options."""
    return re.sub(r'method "(\w+)"', r"--method \1", text.replace("(limit)", "(--limit)"))


_steps = click.option(
    "--steps",
    type=click.IntRange(1),
    help="Take K of the chain's T steps: faster, a little worse.  [default: all]",
    metavar="K",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_backend = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="What computes: numpy, numba, cupy, numba-cuda (see doctor); auto, the fastest for the work at hand.",
)


# train
# ----------------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("run", type=RUN)
@_backend
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Overrule config.yaml, e.g. --set training.lr=1e-3. May be repeated. With --resume: training.epochs and what "
    "else does not change what was trained.",
)
@seed_option(None)
@click.option("--resume", is_flag=True, help="Go on with the newest results of the run, exactly where they stopped.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the resolved configuration, train nothing.")
def train(run: Path, backend: str, sets: tuple[str, ...], seed: int | None, resume: bool, dry_run: bool):
    """Train the model of a run folder: train.txt (or .csv, .npy, ...), and if you like val.txt, config.yaml,
    reverse_model.py.

    Results go to RUN/results/d_MM_DD_YYYY_t_HH_MM_SS. Ctrl-C, SIGTERM and SIGHUP finish the step, save and draw the
    pictures; --resume goes on from there.

    \b
    python cli.py train runs/heartbeat_paper
    python cli.py train runs/heartbeat_paper --set model.T=500 --set training.epochs=5 --seed 1
    python cli.py train runs/heartbeat_paper --resume --set training.epochs=80
    """
    from bdiff_np.runfolder.signals import Watch

    say = lambda text, err=False: click.echo(said(text), err=err)  # noqa: E731
    with Watch() as watch:
        try:
            from bdiff_np.runfolder import session  # takes a while, in which a signal may come

            session.check(run, seed=seed, resume=resume, dry_run=dry_run)
            sets = sets if seed is None else (*sets, f"training.seed={seed}")
            if dry_run:
                configuration, plan = session.plan(run, sets, backend=backend)
                click.echo(configuration, nl=False)
                say(plan, err=True)
                return
            code = session.train(run, sets, backend=backend, resume=resume, watch=watch, say=say)
        except BaseException as fault:
            if not watch.caused(fault):
                raise
            code = watch.exit_code
    sys.exit(code)


# sample
# ----------------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("target", type=RUN, required=False)
@click.option("-n", "n", type=click.IntRange(0), default=10, show_default=True, help="Number of rows.")
@seed_option()
@_steps
@click.option(
    "--out", type=RUN, help="Write to this file (.txt, .csv, .npy, each text also .gz) instead of stdout; - is stdout."
)
@click.option(
    "--known",
    metavar="TEXT",
    help="What is known of each row, ? for what is not: 01? for bits, 0.5,? for points. Only rows that agree are "
    "drawn.",
)
@click.option(
    "--method",
    type=click.Choice(["rejection", "clamp"]),
    help="With --known: rejection draws until rows enough agree, exact; clamp is a quick heuristic.  "
    "[default: rejection; clamp for points]",
)
@click.option("--limit", type=click.IntRange(1), help="Rows that rejection draws at most.  [default: 1048576]")
@_backend
def sample(target: Path | None, n: int, seed: int, steps, out: Path | None, known, method, limit, backend: str):
    """Draw rows from a trained model, one a line.

    \b
    python cli.py sample runs/heartbeat_paper -n 5 --seed 1
    python cli.py sample -n 100000 --steps 200 --out rows.npy
    python cli.py sample runs/heartbeat_paper -n 5 --known "1???????????????????"
    """
    from bdiff_np import sample as sampler
    from bdiff_np.backends import auto
    from bdiff_np.runfolder import files

    out = None if out == Path("-") else out
    if known is None and (method or limit):
        raise InputError(f"--{'method' if method else 'limit'} is for rows of which something is known; give --known")
    if method == "clamp" and limit:
        raise InputError("--limit is for --method rejection; clamp draws each row once")
    if out is not None:
        files.check_folder(out)

    def exact(model) -> bool:
        return known is not None and (method or ("clamp" if model.kind.continuous else "rejection")) == "rejection"

    # how many draws it takes is not known yet; ten for a row is a guess that only the choice of a back end rests on
    model = _open(
        _target(target), backend, lambda m: auto.for_sampling(m, n * (10 if exact(m) else 1), m.steps(steps).T)
    )
    held = None if known is None else model.kind.read_known(known, model.D)
    if out is not None:
        model.kind.check_out(out)
    sampler.check_number(model, n, sampler.COPIES)
    if exact(model):
        limit = limit or sampler.LIMIT
        with progress(limit, f"drawing until {n} agree, at most {limit}", leave=False) as bar:

            def tell(drawn: int, found: int) -> None:
                bar.set_postfix_str(f"{found} found", refresh=False)
                bar.update(drawn)

            try:
                rows = sampler.draw(
                    model, n, seed=seed, steps=steps, known=held, method="rejection", limit=limit, progress=tell
                )
            except InputError as fault:
                raise InputError(_as_options(str(fault))) from None
    else:
        if held is not None:
            click.echo(_as_options(sampler.heuristic(model)), err=True)
        batches = -(-n // sampler.rows_at_once(model))
        with progress(model.steps(steps).T * batches, "sampling", leave=False) as bar, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said above, as a line
            rows = sampler.draw(model, n, seed=seed, steps=steps, known=held, progress=bar.update)
    if out is None:
        click.echo(model.kind.text(rows), nl=False)
    else:
        model.data(rows).write(out)


# evaluate
# ----------------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("target", type=RUN, required=False)
@click.option("--data", "file", type=RUN, help="File of rows to evaluate; - is stdin. [default: those of --split]")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Rows of the run folder. [default: val if there is one, else train]",
)
@click.option(
    "--bound",
    "kind",
    metavar="KIND",
    default="learned",
    show_default=True,
    help="Kind of bound: learned, all reverse steps; paper, the last one fixed.",
)
@_steps
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    metavar="BITS",
    help="Look at steps of the chain until the standard error is at most this.  "
    "[default: 0.02, or 0.05 % of the bound if that is more]",
)
@click.option(
    "--evaluations",
    type=click.IntRange(1),
    help="Look at about so many steps of the chain instead: equally many in each of 32 groups.",
)
@seed_option()
@_json
@_backend
def evaluate(target, file, split, kind, steps, tolerance, evaluations, seed, as_json, backend):
    """The bound on the negative log likelihood of rows, in bits per row, with its standard error.

    Half the error takes four times the evaluations; 8 million, some minutes for a wide network, are the end.
    Where the configuration names the rule that the data obeys, the exact floor of the bound stands beside it.

    \b
    python cli.py evaluate runs/heartbeat_paper --tolerance 0.005
    python cli.py evaluate runs/heartbeat_paper --evaluations 4000000
    python cli.py evaluate runs/heartbeat_paper --bound paper --json
    """
    from bdiff_np import evaluate as evaluation
    from bdiff_np.backends import auto
    from bdiff_np.runfolder.rows import rows_to_evaluate
    from bdiff_np.show import report

    if tolerance is not None and evaluations is not None:
        raise InputError("--tolerance says when to stop, --evaluations how far to go; give one of them")
    source = _target(target)
    model = _open(source, backend, lambda m: auto.for_evaluation(m, evaluations or evaluation.EVALUATIONS))
    name, rows, population = rows_to_evaluate(model, source, file, split)
    if evaluations is None and tolerance is None:
        wanted = {"tolerance": evaluation.TOLERANCE, "relative": evaluation.RELATIVE}
    else:
        wanted = {"tolerance": tolerance, "evaluations": evaluations}
    start = time.monotonic()
    with progress(evaluation.GROUPS, "evaluating", leave=False) as bar:

        def tell(done: int = 1, total: int = evaluation.GROUPS) -> None:
            bar.total = total
            bar.update(done)

        bound = evaluation.bound(
            model, rows, kind=kind, steps=steps, seed=seed, population=population,
            entropy=model.kind.entropy(model.config.data, rows), progress=tell, **wanted,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({**bound.as_dict(), "data": name, "checkpoint": str(source.checkpoint)}, indent=1))
    else:
        click.echo(report.bound(bound, name, model.family))
    # on stderr: the same seed gives the same output
    click.echo(report.effort(bound, time.monotonic() - start), err=True)
    if evaluations is None and (sentence := report.not_reached(bound, **wanted)):
        click.echo(sentence, err=True)


# validate
# ----------------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("target", type=RUN, required=False)
@click.option("-n", "n", type=click.IntRange(1), default=2000, show_default=True, help="Number of samples.")
@_steps
@seed_option()
@_json
@_backend
def validate(target, n, steps, seed, as_json, backend):
    """Draw samples and tell how like the data they are: of bits, which are training rows, held-out rows, valid but
    unseen, or invalid; of points, their distances from held-out points.

    \b
    python cli.py validate runs/repeating_patterns_len_20_per_10 -n 50000
    """
    from bdiff_np import evaluate as evaluation
    from bdiff_np import sample as sampler
    from bdiff_np.backends import auto
    from bdiff_np.runfolder.rows import rows_of_run

    source = _target(target)
    model = _open(source, backend, lambda m: auto.for_sampling(m, n, m.steps(steps).T))
    train_rows, val_rows = rows_of_run(model, source)
    evaluation.check_width(model, train_rows)
    census = train_rows.census(val_rows, model.config.data)
    if census is None:
        raise InputError(
            f"{source.checkpoint}: samples of the family {model.family.name} are not counted; evaluate gives its bound"
        )
    sampler.check_number(model, n, sampler.COPIES)
    with progress(model.steps(steps).T * -(-n // sampler.rows_at_once(model)), "sampling", leave=False) as bar:
        rows = sampler.draw(model, n, seed=seed, steps=steps, progress=bar.update)
    counts = census(model.kind.from_array(rows))
    click.echo(
        json.dumps({**counts, "checkpoint": str(source.checkpoint)}, indent=1) if as_json else census.words(counts)
    )


# check-net
# ----------------------------------------------------------------------------------------------------------------------


@main.command("check-net")
@click.argument("run", type=RUN)
@seed_option()
def check_net(run: Path, seed: int):
    """Check the gradients of a run's network, parameter by parameter; exit code 1 if one is wrong.

    Worth a second before every training with a reverse_model.py of your own.

    \b
    python cli.py check-net runs/heartbeat_paper
    """
    from bdiff_np.runfolder.check_net import check_net

    lines, good = check_net(run, seed)
    click.echo(lines)
    if not good:
        sys.exit(1)


@main.command()
@_json
def doctor(as_json):
    """Which back ends work here; for each that does not, why, and the command that fixes it. Exit code 0 either way.

    \b
    python cli.py doctor
    """
    from bdiff_np.backends import doctor as doctor_

    report = doctor_.examine()
    click.echo(json.dumps(report, indent=1) if as_json else doctor_.text(report))


@main.command()
@click.option("--family", help="Diffusion family whose settings to list.  [default: that of config.yaml]")
@click.option("--net", help="Network whose settings to list.  [default: that of config.yaml]")
def settings(family, net):
    """Every setting of config.yaml: values, default, meaning, as Markdown.

    \b
    python cli.py settings > docs/settings.md
    """
    from bdiff_np.config.reference import reference

    click.echo(reference(family, net))


# data
# ----------------------------------------------------------------------------------------------------------------------


@main.group(cls=Commands)
def data():
    """Make example data: train and val rows in a run folder and, if there is none, its config.yaml.

    \b
    python cli.py data heartbeat --length 20 --period 5 --hold-out 4 --out runs/my_heartbeat
    python cli.py data swiss-roll --rows 20000 --out runs/my_roll
    """


for command in guests.commands("data"):
    data.add_command(command)
