"""A run's folder: where its results are, what they are called, and which checkpoint a name on the command line means.

runs/X/      config.yaml, train.txt, val.txt and, if the run has a network of its own, reverse_model.py
runs/X/results/d_MM_DD_YYYY_t_HH_MM_SS/
             one training: its config.yaml, checkpoints/, metrics.csv, results.json, pictures
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bdiff_np.errors import InputError
from bdiff_np.nets.custom import FILE as CODE
from bdiff_np.runfolder.files import check_readable, check_regular, write_own

_RESULTS = re.compile(r"d_(\d\d)_(\d\d)_(\d{4})_t_(\d\d)_(\d\d)_(\d\d)(?:_(\d+))?")
_CHECKPOINT = re.compile(r"model_epoch_([0-9]{1,15})\.safetensors")


def new_results(run: Path, now: datetime | None = None) -> Path:
    """Makes an empty results folder, named by the time; a second one in the same second gets a number."""
    stem = (now or datetime.now()).strftime("d_%m_%d_%Y_t_%H_%M_%S")
    for count in range(1, 1000):
        folder = run / "results" / (stem if count == 1 else f"{stem}_{count}")
        try:
            (folder / "checkpoints").mkdir(parents=True, exist_ok=False)
            return folder
        except FileExistsError:
            if not (run / "results").is_dir():
                raise InputError(f"{run / 'results'}: is a link that leads nowhere; remove it or mend it") from None
            continue
        except OSError as fault:
            raise InputError(f"{folder}: cannot be made: {fault.strerror}") from None
    raise InputError(f"{run / 'results'}: 1000 trainings started within a second")


def all_results(run: Path) -> list[Path]:
    """Results folders of a run, oldest first, by the time in their names."""
    return sorted((folder for folder in (run / "results").glob("d_*") if _time(folder) and folder.is_dir()), key=_time)


def _time(results: Path) -> tuple[int, ...]:
    """What a results folder's name says, in the order of time; () for another name."""
    match = _RESULTS.fullmatch(results.name)
    if not match:
        return ()
    month, day, year, *rest = (int(group or 1) for group in match.groups())
    return (year, month, day, *rest)


def checkpoints(results: Path) -> dict[int, Path]:
    """Epoch -> checkpoint, in the order of the epochs."""
    files = {}
    for path in (results / "checkpoints").glob("model_epoch_*.safetensors"):
        match = _CHECKPOINT.fullmatch(path.name)
        if match:
            files[int(match.group(1))] = path
    return dict(sorted(files.items()))


def checkpoint_path(results: Path, epoch: int) -> Path:
    return results / "checkpoints" / f"model_epoch_{epoch}.safetensors"


def write_json(path: Path, value: dict) -> None:
    """One line for each key: long lists stay short to read, and small values easy to find."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items())
    write_own(path, f"{{\n{lines}\n}}\n".encode())


def read_results(results: Path) -> dict:
    """results.json, or {} where there is none. Raises InputError for one that cannot be read, or that chooses no
    epoch."""
    path = results / "results.json"
    check_regular(path)
    fix = "without it the newest checkpoint counts, so remove it, or name a checkpoint"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise InputError(f"{path}: cannot be read: {fault.strerror or fault}; {fix}") from None
    except (ValueError, RecursionError) as fault:  # no JSON or no text, a number too long, lists too deep
        raise InputError(f"{path}: damaged ({str(fault)[:100]}); {fix}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged (no object of keys); {fix}")
    if not isinstance(content.get("chosen_epoch"), int | None):
        raise InputError(f"{path}: damaged (chosen_epoch is {str(content['chosen_epoch'])[:60]}); {fix}")
    return content


@dataclass(frozen=True)
class Source:
    """What a target stands for.

    checkpoint : the file. results, run : the folders it lies in, None for a checkpoint that lies elsewhere
    named : how the user named it: "checkpoint", "results", "run" or "nothing"
    """

    checkpoint: Path
    results: Path | None
    run: Path | None
    named: str

    def trusted_code(self, needed: bool) -> Path | None:
        """The reverse_model.py to execute, if one is needed: only out of a folder that the user named."""
        if not needed:
            return None
        if self.named not in ("results", "run") or self.results is None:
            where = self.results or "its results folder"
            raise InputError(
                f"{self.checkpoint}: its network is a {CODE}, which is executed only from a folder that you name; "
                f"if you trust {where}, give that folder instead"
            )
        if not (self.results / CODE).is_file():
            raise InputError(f"{self.results / CODE}: missing; this run was trained with it")
        return self.results / CODE


def resolve(target: str | Path | None) -> Source:
    """The checkpoint that a target means. Raises InputError where it means none.

    target : a checkpoint, a results folder, a run folder (its newest results that have a checkpoint), or None: the
        newest results under runs/
    """
    if target is None:
        every = [r for run in Path("runs").glob("*") for r in all_results(run) if checkpoints(r)]
        if not every:
            raise InputError(
                "runs/: no results yet; train a run first, for example: python cli.py train runs/heartbeat_paper"
            )
        newest = max(every, key=_time)
        return Source(_chosen(newest), newest, newest.parent.parent, "nothing")
    path = Path(target)
    for folder in (path, path / "results", path / "checkpoints"):
        check_readable(folder)
    if path.is_file():
        inside = _CHECKPOINT.fullmatch(path.name) and path.parent.name == "checkpoints"
        results = path.resolve().parent.parent if inside else None
        run = results.parent.parent if results is not None and results.parent.name == "results" else None
        return Source(path, results, run, "checkpoint")
    if not path.is_dir():
        check_regular(path)
        raise InputError(f"{path}: there is no such checkpoint, results folder or run folder")
    if checkpoints(path):
        run = path.resolve().parent.parent if path.resolve().parent.name == "results" else None
        return Source(_chosen(path), path, run, "results")
    for results in reversed(all_results(path)):
        check_readable(results / "checkpoints")
        if checkpoints(results):
            return Source(_chosen(results), results, path, "run")
    raise InputError(f"{path}: holds no checkpoint and no results; train it first: python cli.py train {path}")


def _chosen(results: Path) -> Path:
    """The checkpoint that the training stands for: the one it chose, else the last."""
    files = checkpoints(results)
    return files.get(read_results(results).get("chosen_epoch", 0), list(files.values())[-1])
