"""The end of a training: bounds, samples and pictures of the model that the run stands for."""

from __future__ import annotations

from bdiff_np import __version__, evaluate, sample
from bdiff_np.model import Model
from bdiff_np.runfolder import rundir, saving
from bdiff_np.runfolder.progress import progress
from bdiff_np.show import pictures, report

EVALUATIONS = 1 << 19


def conclude(run) -> dict:
    """Writes results.json and the pictures of a run.Run; returns what results.json then holds besides the histories,
    and the samples as "rows"."""
    settings, model, kind = run.settings, take_chosen_weights(run), run.training.model.kind
    parts = {"train": (run.train_rows, kind.population(settings.data, run.train_rows))}
    if run.val_rows is not None:
        parts["val"] = (run.val_rows, kind.population(settings.data, run.train_rows, run.val_rows))
    bar = progress(evaluate.GROUPS * len(parts), "evaluating")
    evaluations = evaluate.unasked(model, EVALUATIONS)
    bounds = {
        name: evaluate.bound(
            model, rows, evaluations=evaluations, population=population, entropy=kind.entropy(settings.data, rows),
            progress=bar.update,
        )
        for name, (rows, population) in parts.items()
    }  # fmt: skip
    bar.close()
    n = max(settings.training.num_val_samples, settings.training.num_examples)
    bar = progress(model.chain.T * -(-n // sample.rows_at_once(model)), f"drawing {n} samples")
    rows = sample.draw(model, n, seed=settings.training.seed + 1, progress=bar.update)
    bar.close()
    census = run.history.census and run.history.census(kind.from_array(rows))
    results = {"bounds": {name: b.as_dict() for name, b in bounds.items()}, "samples": census, "version": __version__}
    try:
        pictures.draw(run, model, bounds["train"], rows)
    except Exception:  # a fault of a picture takes nothing of the rest
        rundir.write_json(run.results / "results.json", {**run.summary(), **results})
        raise
    # last, for it says that all is there
    rundir.write_json(run.results / "results.json", {**run.summary(), **results})
    return {**results, "rows": rows[: settings.training.num_examples]}


def concluded(run) -> dict | None:
    """What `conclude` left of a run that has come to its end, None where there is nothing yet, or
    something else."""
    results = rundir.read_results(run.results)
    chosen = run.summary()["chosen_epoch"]  # another one than there was, where a checkpoint is lost
    whole = {"bounds", "samples"} <= results.keys() and results.get("chosen_epoch") == chosen
    return results if run.finished and whole and _fits(run, results) else None


def _fits(run, results: dict) -> bool:
    """Whether the content is what `conclude` would have written: all of it can be told."""
    try:
        report.conclusion(run, results)
        return results["bounds"].keys() == ({"train"} if run.val_rows is None else {"train", "val"})
    except Exception:  # of any kind, for anything may stand there
        return False


def take_chosen_weights(run) -> Model:
    """The model with the averaged weights of now or, if the run selects the best epoch, with those of that epoch, which
    take the place of the others."""
    weights = saving.weights_of_best(run)
    if weights is not None:
        run.training.optimizer.ema.fill(weights)
    return run.training.averaged
