"""What people and disks do to inputs, some thousands of times: an answer or one sentence, never anything else.

Every case is made from a number, which a failure names. `--fuzz N` makes N of each kind: python3 dev.py test
tests/test_fuzz.py --fuzz 10000.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from test_tables import READ, REFUSED

from bdiff_np import config
from bdiff_np.data import read_file
from bdiff_np.data.bits import Bits
from bdiff_np.errors import InputError
from bdiff_np.model import Model
from bdiff_np.runfolder import checkpoint, opening, rundir

ROOT = Path(__file__).resolve().parent.parent
PIECES = [
    b"0", b"1", b",", b";", b"\t", b"|", b" ", b"\n", b"\r\n", b"\r", b'"', b"'", b"NA", b"nan", b"2", b"-1", b"255",
    b"yes", b"TRUE", b"#", b"\xff", b"\xef\xbb\xbf", b"\0", b"\x1f\x8b", "ä".encode(), b"0.0", b"1e999", b"9" * 400,
    b":", b"{", b"}", b"[", b"]", b"&a", b"*a", b"!!python/object:os.system", b"null", b"true", b"-", b"- ", b"\x1a",
    b"%", b"@", b"`", b"~", b"1e3", b".inf", b"0x10", b"model:", b"training:", b"hidden", b"lr: ",
]  # fmt: skip
VALUES = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, float("inf"),
    float("nan"), "", "x", "0", "é" * 50, [], [0], [[[]]], {}, {"a": 1}, [None], "../../etc", "\0",
]  # fmt: skip


@pytest.fixture
def number(request) -> int:
    """How many cases of a kind."""
    return request.config.getoption("--fuzz")


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, left out, doubled, moved, or put in from PIECES."""
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        i, j = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        match rng.randrange(7):
            case 0:
                data = data[:i] + rng.choice(PIECES) + data[i:]
            case 1:
                data = data[:i] + rng.choice(PIECES) + data[i + 1 :]
            case 2:
                data = data[:i] + data[i + rng.randint(1, 4) :]
            case 3:
                data = data[:i] + bytes([rng.randrange(256)]) + data[i + 1 :]
            case 4:
                data = data[:i] + data[i:j] * rng.randint(2, 4) + data[j:]
            case 5:
                data = data[:j]
            case 6:
                rows = data.split(b"\n")
                rng.shuffle(rows)
                data = b"\n".join(rows)
    return data


def changed(rng: random.Random, value):
    """A JSON value with one part of it replaced, left out or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        match rng.randrange(6):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, rng.choice(["D", "step", "epoch", "x", ""]): rng.choice(VALUES)}
            case _:
                return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.7:
        k = rng.randrange(len(value))
        return rng.choice([value[:k], value + value, [*value[:k], changed(rng, value[k]), *value[k + 1 :]]])
    return rng.choice(VALUES)


def one_sentence(call, *names: str) -> None:
    """`call` succeeds, or raises InputError of short printable lines that name what is at fault."""
    try:
        call()
    except InputError as fault:
        message = str(fault)
        assert message and max(map(len, message.splitlines())) < 1000, message
        assert all(any(line.startswith(name) for name in names) for line in message.splitlines()), message


# Tables
# ----------------------------------------------------------------------------------------------------------------------


def test_tables(tmp_path, number, record_property):
    bases = [
        content if isinstance(content, bytes) else content.encode()
        for content, *_ in (*READ.values(), *REFUSED.values())
    ]
    np.save(tmp_path / "a.npy", np.eye(4, dtype=np.uint8))
    np.savez(tmp_path / "a.npz", X=np.eye(4))
    arrays = {name: (tmp_path / name).read_bytes() for name in ("a.npy", "a.npz")}
    for case in range(number):
        rng = random.Random(case)
        name = rng.choice(
            ["t.txt", "t.csv", "t.csv", "t.tsv", "t.data", "t.csv.gz", "a.npy", "a.npz", "t.hap", "t.haps"]
        )
        path = tmp_path / name
        path.write_bytes(mutated(rng, arrays.get(name) or rng.choice(bases)))
        one_sentence(lambda: read_file(Bits, path), f"{path}:")  # noqa: B023
    record_property("tables", number)


# Configurations
# ----------------------------------------------------------------------------------------------------------------------


def test_configurations(tmp_path, number, record_property):
    texts = [path.read_bytes() for path in sorted(ROOT.glob("runs/*/config.yaml"))]
    texts.append(config.dump(config.load(os.devnull)).encode())
    path = tmp_path / "config.yaml"
    for case in range(number):
        rng = random.Random(case)
        path.write_bytes(mutated(rng, rng.choice(texts)))
        one_sentence(lambda: config.load(path), f"{path}:")
    record_property("configurations", number)


def test_options(number, record_property):
    keys = [f"{section}.{field}" for section, cls in config.schema().sections.items() for field in cls.model_fields]
    for case in range(number // 2):
        rng = random.Random(case)
        text = f"{rng.choice(keys)}={json.dumps(rng.choice(VALUES))}"
        if rng.random() < 0.5:
            text = mutated(rng, text.encode()).decode("utf-8", "replace")
        one_sentence(lambda: config.load(os.devnull, [text]), "--set ", os.devnull)  # noqa: B023
    record_property("options", number // 2)


# What a training left
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(trained, tmp_path) -> Path:
    """A copy of a trained run folder, to be damaged."""
    shutil.copytree(trained.run, tmp_path / "run")
    return next((tmp_path / "run" / "results").iterdir())


def damage(rng: random.Random, path: Path, whole: bytes) -> None:
    """Another checkpoint in the place of one: bytes changed, or a wrong content under a right checksum."""
    if rng.random() < 0.3:
        path.write_bytes(mutated(rng, whole))
        return
    tensors, meta = checkpoint.read(path)
    if rng.random() < 0.6:
        meta = changed(rng, meta)
    else:
        name = rng.choice(sorted(tensors))
        array = tensors[name].copy()
        match rng.randrange(5):
            case 0:
                del tensors[name]
            case 1:
                array.reshape(-1)[:1] = rng.choice([np.nan, np.inf, -1e38, 1e38, 7])
            case 2:
                array = array.reshape(-1)[: rng.randint(0, array.size)]
            case 3:
                array = array.astype(rng.choice([np.float64, np.int8, np.float16]))
            case 4:
                array = np.zeros((2, 3, 1), np.float32)
        if name in tensors:
            tensors[name] = array
    if isinstance(meta, dict):
        meta.pop("crc32", None)
        checkpoint.write(path, tensors, meta)


def test_checkpoints(damaged, number, record_property):
    """Loaded, and sampled from; or one sentence that names the file."""
    path = rundir.checkpoint_path(damaged, 3)
    whole = path.read_bytes()

    def use() -> None:
        model = Model.load(path)
        with np.errstate(all="ignore"):
            rows = model.data(model.sample(1, seed=0))
        rows.write(damaged / "x.csv")

    for case in range(number):
        path.write_bytes(whole)
        damage(random.Random(case), path, whole)
        one_sentence(use, f"{path}:")
    record_property("checkpoints", number)


def test_what_a_training_goes_on_from(damaged, number, record_property, capfd):
    """results.json, metrics.csv, config.yaml and checkpoints damaged: --resume goes on from what is good, saying so, or
    refuses in one sentence; nothing of the folder changes."""
    files = ["results.json", "metrics.csv", "config.yaml", "reverse_model.py", "checkpoints/model_epoch_3.safetensors"]
    whole = {name: (damaged / name).read_bytes() for name in files}
    run = damaged.parent.parent

    def resume() -> None:
        opening.resume(run, backend="numpy").release()

    for case in range(number):
        rng = random.Random(case)
        name = rng.choice(files)
        path = damaged / name
        if name.endswith(".safetensors"):
            damage(rng, path, whole[name])
        elif name == "results.json" and rng.random() < 0.7:
            path.write_text(json.dumps(changed(rng, json.loads(whole[name]))))
        else:
            path.write_bytes(mutated(rng, whole[name]))
        before = {file: (damaged / file).read_bytes() for file in files}
        one_sentence(resume, str(run), "--set ")
        assert {file: (damaged / file).read_bytes() for file in files} == before
        path.write_bytes(whole[name])
    assert "Traceback" not in capfd.readouterr().err
    record_property("results", number)


def test_commands(tmp_path, number, record_property):
    """Through the command line: exit code 0 or 2, no traceback, and nothing written."""
    bases = [content if isinstance(content, bytes) else content.encode() for content, *_ in READ.values()]
    run = tmp_path / "run"
    run.mkdir()
    for case in range(number // 10):
        rng = random.Random(case)
        (run / "train.csv").write_bytes(mutated(rng, rng.choice(bases)))
        settings = b"model: {T: 5, hidden: [4]}\ntraining: {epochs: 1}\n"
        (run / "config.yaml").write_bytes(mutated(rng, settings) if case % 4 == 0 else settings)
        found = invoke("train", run, "--dry-run", "--backend", "numpy")
        assert found.exit_code in (0, 2) and isinstance(found.exception, SystemExit | None), (case, found.exception)
        assert "Traceback" not in found.stderr and bool(found.stdout) == (found.exit_code == 0), case
        assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "train.csv"]
    record_property("commands", number // 10)
