"""config.yaml: every fault at its place, all of them at once, and a file that is written and read back unchanged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bdiff_np import config
from bdiff_np.config import schema, yaml_lines
from bdiff_np.config.config_lines import expects
from bdiff_np.data.bits import Heartbeat, Multiples, Repeating
from bdiff_np.errors import InputError

Config, (Model, Training, Data) = schema().Config, schema().sections.values()

REFERENCE = """\
model:
  T: 2000
  num_sample_steps: 30
training:
  epochs: 30
  lr: .05
  save_every_n_epochs: 10
  num_examples: 10
  num_val_samples: 1024
  val_batch_size: 64
  clip_thresh: 1.0
data:
  batch_size: 64
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> str:
        Path("config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "config.yaml"

    return write


def faults(path: str, *sets: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        config.load(path, sets)
    return str(caught.value).splitlines()


def test_reference_config_loads(write):
    c = config.load(write(REFERENCE))
    assert c.model == Model(T=2000, num_sample_steps=30)
    assert c.training == Training(epochs=30, lr=0.05, val_batch_size=64)
    assert c.data == Data(batch_size=64)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "\ufeff", "training:\n", "model:\ntraining: {}\ndata: ~\n", "{}"]
)
def test_nothing_given_is_all_defaults(write, text):
    assert config.load(write(text)) == Config()
    assert config.load(write(text), ["training.lr=2"]).training.lr == 2


# The place of a wrong value is the value's, of a wrong key the key's.
ONE_FAULT = {
    "model:\n  T: 0\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got 0)",
    "model:\n  T: 100001\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got 100001)",
    "model:\n  T: true\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got true)",
    "model:\n  T: 3.5\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got 3.5)",
    "model:\n  T: 20.0\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got 20.0)",
    "model:\n  T: '20'\n": '2:6: model.T: must be a whole number, at least 1 and at most 100000 (got "20")',
    "model:\n  T: 010\n": '2:6: model.T: must be a whole number, at least 1 and at most 100000 (got "010")',
    "model:\n  T: 1:30\n": '2:6: model.T: must be a whole number, at least 1 and at most 100000 (got "1:30")',
    "model:\n  T: 1_000\n": '2:6: model.T: must be a whole number, at least 1 and at most 100000 (got "1_000")',
    "model:\n  T: [1]\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got [1])",
    "model:\n  T:\n": "2:5: model.T: must be a whole number, at least 1 and at most 100000 (got null)",
    f"model:\n  T: {'9' * 5000}\n": "2:6: model.T: the number is too long",
    "model:\n  T: 2024-13-45\n": "2:6: model.T: must be a whole number, at least 1 and at most 100000 (got "
    '"2024-13-45")',
    "model:\n  skip: yes\n": '2:9: model.skip: must be true or false (got "yes")',
    "model:\n  skip: off\n": '2:9: model.skip: must be true or false (got "off")',
    "model:\n  skip: 1\n": "2:9: model.skip: must be true or false (got 1)",
    "model:\n  schedule: cosin\n": "2:13: model.schedule: must be one of paper, linear, quadratic, constant, cosine, "
    "sigmoid"
    ' (got "cosin"); did you mean cosine?',
    "model:\n  predict: eps\n": '2:12: model.predict: must be one of x0, x_prev (got "eps")',
    "model:\n  pi: 1\n": "2:7: model.pi: must be a number, at least 1e-09 and at most 0.999999999, or the word data "
    "(got 1)",
    "model:\n  pi: 0.0\n": "2:7: model.pi: must be a number, at least 1e-09 and at most 0.999999999, or the word data "
    "(got 0.0)",
    "model:\n  pi: Data\n": "2:7: model.pi: must be a number, at least 1e-09 and at most 0.999999999, or the word "
    'data (got "Data");'
    " did you mean data?",
    "model:\n  net: ../x\n": '2:8: model.net: must be a name of small letters, digits and _ (got "../x")',
    "model:\n  family: 3\n": "2:11: model.family: must be a name of small letters, digits and _ (got 3)",
    "model:\n  hidden: []\n": "2:11: model.hidden: must be a list of one to 1000 entries, each a whole number, at "
    "least 1 and at most 1048576 (got [])",
    "model:\n  hidden: 50\n": "2:11: model.hidden: must be a list of one to 1000 entries, each a whole number, at "
    "least 1 and at most 1048576 (got 50)",
    "model:\n  hidden: [50, 0]\n": (
        "2:16: model.hidden: entry 2 must be a whole number, at least 1 and at most 1048576 (got 0)"
    ),
    "model:\n  hidden:\n  - 50\n  - true\n": (
        "4:5: model.hidden: entry 2 must be a whole number, at least 1 and at most 1048576 (got true)"
    ),
    "model:\n  time_features: 3\n": (
        "2:18: model.time_features: must be a whole number, at least 2 and at most 1024 and even (got 3)"
    ),
    "model:\n  dropout: 1\n": "2:12: model.dropout: must be a number, at least 0 and below 1 (got 1)",
    "training:\n  lr: 0\n": "2:7: training.lr: must be a number, above 0 and at most 1e+30 (got 0)",
    "training:\n  lr: .nan\n": "2:7: training.lr: must be a number, above 0 and at most 1e+30 (got NaN)",
    "training:\n  lr: 1e999\n": "2:7: training.lr: must be a number, above 0 and at most 1e+30 (got Infinity)",
    f"training:\n  lr: 1{'0' * 400}\n": (
        f"2:7: training.lr: must be a number, above 0 and at most 1e+30 (got 1{'0' * 56}...)"
    ),
    "training:\n  lr: false\n": "2:7: training.lr: must be a number, above 0 and at most 1e+30 (got false)",
    "training:\n  lr: 1,5\n": '2:7: training.lr: must be a number, above 0 and at most 1e+30 (got "1,5")',
    "training:\n  ema: 1.0\n": "2:8: training.ema: must be a number, at least 0 and below 1 (got 1.0)",
    "training:\n  clip_thresh: 0\n": (
        "2:16: training.clip_thresh: must be a number, above 0 and at most 1e+30, or null (got 0)"
    ),
    "training:\n  seed: -1\n": "2:9: training.seed: must be a whole number, at least 0 and at most "
    "9223372036854775806 (got -1)",
    f"training:\n  seed: {2**63}\n": "2:9: training.seed: must be a whole number, at least 0 and at most "
    "9223372036854775806"
    " (got 9223372036854775808)",
    "training:\n  sample_steps: 0\n": (
        "2:17: training.sample_steps: must be a whole number, at least 1 and at most 2147483647, or null (got 0)"
    ),
    "data:\n  shape: [28]\n": (
        "2:10: data.shape: must be a list of 2 entries, each a whole number, at least 1 and at most 2147483647, or "
        "null (got [28])"
    ),
    "data:\n  shape: [28, 0]\n": (
        "2:15: data.shape: entry 2 must be a whole number, at least 1 and at most 2147483647 (got 0)"
    ),
    "data:\n  shape: [1, 2, 3]\n": (
        "2:10: data.shape: must be a list of 2 entries, each a whole number, at least 1 and at most 2147483647, "
        "or null (got [1, 2, 3])"
    ),
    "data:\n  rule: heartbeat\n": "2:9: data.rule: must be {name: heartbeat, period: N}, or {name: repeating, block: "
    "N},"
    ' or {name: multiples, k: N}, or null (got "heartbeat")',
    "data:\n  rule: {period: 5}\n": "2:9: data.rule.name: missing; it must be one of heartbeat, repeating, multiples",
    "data:\n  rule: {name: beat, period: 5}\n": "2:16: data.rule.name: must be one of heartbeat, repeating, multiples"
    ' (got "beat"); did you mean heartbeat?',
    "data:\n  rule: {name: heartbeat}\n": (
        "2:9: data.rule.period: missing; it must be a whole number, at least 1 and at most 2147483647"
    ),
    "data:\n  rule:\n    name: heartbeat\n    perod: 5\n": "4:5: data.rule.perod: unknown key; did you mean period?",
    "data:\n  rule:\n    name: multiples\n    k: 0\n": (
        "4:8: data.rule.k: must be a whole number, at least 1 and at most 4611686018427387904 (got 0)"
    ),
    "training:\n  lrr: 1\n": "2:3: training.lrr: unknown key; did you mean lr?",
    "backend: cupy\n": "1:1: backend: unknown key; the back end is chosen on the command line, by --backend",
    "training:\n  device: cuda\n": "2:3: training.device: unknown key; the back end is chosen on the command line, by "
    "--backend",
    "training:\n  LR: 1\n": "2:3: training.LR: unknown key; did you mean lr?",
    "training:\n  batch_size: 1\n": "2:3: training.batch_size: unknown key; it belongs to data",
    "training:\n  timefeatures: 4\n": "2:3: training.timefeatures: unknown key; did you mean model.time_features?",
    "data:\n  zzz: 1\n": "2:3: data.zzz: unknown key; known here: batch_size, val, shape, rule",
    "lr: 1\n": "1:1: lr: unknown key; it belongs to training",
    "trainning:\n  lr: 1\n": "1:1: trainning: unknown key; did you mean training?",
    "1: 2\n": "1:1: 1: unknown key; known here: model, training, data",
    "training: 5\n": "1:11: training: must be a section of keys (got 5)",
    "training: 0\n": "1:11: training: must be a section of keys (got 0)",
    "training:\n- lr\n": '2:1: training: must be a section of keys (got ["lr"])',
    "training:\n  lr: 1\n  ? [a]\n  : 2\n": "3:5: training: a key must be one word, not a list or a mapping",
    "training:\n  lr: 1\n  epochs: 2\n  lr: 1\n": "4:3: training.lr: given twice; the first is in line 2",
    "data:\ndata:\n  batch_size: 1\n": "2:1: data: given twice; the first is in line 1",
    "- model\n": '1:1: must hold the sections model, training, data (got ["model"])',
    "\n text\n": '2:2: must hold the sections model, training, data (got "text")',
    # two fields that do not go together
    "model:\n  residual: true\n  hidden: [1, 1]\n": "3:11: model.hidden: LayerNorm makes 0 of a single unit; take 2 or "
    "more with residual: true",
    "model:\n  residual: true\n  hidden: [50, 60]\n": "3:11: model.hidden: widths must all be equal with residual: "
    "true (got [50, 60])",
    "model:\n  predict: x_prev\ntraining:\n  bce_weight: .1\n": "4:15: training.bce_weight: must be 0 with "
    "model.predict: x_prev,"
    " for there is no x_0 to compare (got 0.1)",
    "training:\n  patience: 3\n  select: last\n": "2:13: training.patience: needs training.select: best (it is last);"
    " without it, leave patience out or null",
    # not YAML
    "training:\n\tlr: 1\n": "2:1: a tab stands here; indent and separate with spaces",
    "training:\n  lr: 1\n epochs: 3\n": "3:2: the indentation does not fit the lines above",
    "training:\n  lr 1\n  epochs: 3\n": "3:9: this ':' is not expected; is a ':' missing in the line above, or is the "
    "indentation wrong?",
    "training:\n  lr: 1\n  epochs\n": "4:1: the key begun in line 3 has no ':' after it",
    "model:\n  hidden: [50, 50\ntraining:\n": "3:9: the list or mapping begun in line 2 is not closed; ']' or a comma "
    "is missing",
    "model:\n  net: 'mlp\n": "3:1: the quotation mark opened in line 2 is not closed",
    "model:\n  net: @mlp\n": "2:8: a value cannot begin with '@'; put it in quotes",
    "model:\n  net: *mlp\n": "2:8: anchors (&), aliases (*) and tags (!) are not used here; write the value itself, "
    "or put it in quotes",
    "model: &a\n  T: 5\n": "1:8: anchors (&), aliases (*) and tags (!) are not used here; write the value itself, or "
    "put it in quotes",
    "model: !!python/object:x {}\n": "1:8: anchors (&), aliases (*) and tags (!) are not used here;"
    " write the value itself, or put it in quotes",
    "model:\n---\ndata:\n": "2:1: a second document begins here; one is expected",
    "model:\n  T: \x00\n": "2:6: the character U+0000 is not allowed in YAML",
    "[" * 5000: "1:1: lists and mappings are nested too deeply",
    "# é\nmodel: \xff".encode("latin-1"): "1:3: not UTF-8 text (byte 0xe9); save the file as UTF-8",
    "# é\n# é".encode() + b"\xff": "2:4: not UTF-8 text (byte 0xff); save the file as UTF-8",
    b"\xef\xbb\xbf# \xff": "1:3: not UTF-8 text (byte 0xff); save the file as UTF-8",
    "model:\n".encode("utf-16"): "1:1: not UTF-8 text (byte 0xff); save the file as UTF-8",
}


@pytest.mark.parametrize("text", ONE_FAULT, ids=lambda text: repr(text[:40]))
def test_one_fault(write, text):
    assert faults(write(text)) == [f"config.yaml:{ONE_FAULT[text]}"]


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")], ids=["BOM", "CRLF"])
def test_places_hold_with_bom_and_crlf(write, change):
    assert faults(write(change("training:\n  lr: 0\n"))) == [
        "config.yaml:2:7: training.lr: must be a number, above 0 and at most 1e+30 (got 0)"
    ]
    assert faults(write(change("lr: 0"))) == ["config.yaml:1:1: lr: unknown key; it belongs to training"]


def test_all_faults_at_once_in_the_order_of_the_file(write):
    """Faults of YAML, of values, of keys and of two fields together, then those of the options; each field has one."""
    text = """\
training:
  lr: fast
  lr: 3
  patience: 5
  batch_size: 3
model:
  hidden: [50, 0, 2.5]
  T: 0
data: 7
trainning: {}
"""
    got = faults(write(text), "model.pi=2", "nonsense", "data.shape=[1, x]")
    assert [fault.split(": ")[:2] for fault in got] == [
        ["config.yaml:2:7", "training.lr"],
        ["config.yaml:3:3", "training.lr"],
        ["config.yaml:5:3", "training.batch_size"],
        ["config.yaml:7:16", "model.hidden"],
        ["config.yaml:7:19", "model.hidden"],
        ["config.yaml:8:6", "model.T"],
        ["config.yaml:9:7", "data"],
        ["config.yaml:10:1", "trainning"],
        ["--set model.pi=2", "model.pi"],
        ["--set nonsense", "write --set section.key=value, such as --set training.lr=1e-3"],
        ["--set data.shape=[1, x]", "data.shape"],
    ]


def test_faults_of_two_fields_stand_beside_faults_of_others(write):
    got = faults(
        write("training:\n  patience: 5\n  select: last\n  lr: 0\n  bce_weight: 1\nmodel:\n  predict: x_prev\n")
    )
    assert [fault.split(": ")[:2] for fault in got] == [
        ["config.yaml:2:13", "training.patience"],
        ["config.yaml:4:7", "training.lr"],
        ["config.yaml:5:15", "training.bce_weight"],
    ]


@pytest.mark.parametrize("line", ["select: bset", "selct: best", "select: best\n  select: last"])
def test_a_misspelt_field_is_not_taken_for_its_default(write, line):
    """patience needs select: best. Where best was meant and misspelt, that is the one fault."""
    assert len(faults(write(f"training:\n  patience: 3\n  {line}\n"))) == 1


@pytest.mark.parametrize(
    ("option", "fault"),
    {
        "training.lr": "write --set section.key=value, such as --set training.lr=1e-3",
        "": "write --set section.key=value, such as --set training.lr=1e-3",
        "=3": "write --set section.key=value, such as --set training.lr=1e-3",
        "training.=3": "write --set section.key=value, such as --set training.lr=1e-3",
        "..=3": "write --set section.key=value, such as --set training.lr=1e-3",
        "training=3": "training: is a section; set one key of it, as in --set training.KEY=VALUE",
        "lr=3": "lr: unknown key; it belongs to training",
        "training.lrr=3": "training.lrr: unknown key; did you mean lr?",
        "trainning.lr=3": "trainning: unknown key; did you mean training?",
        "training.batch_size=3": "training.batch_size: unknown key; it belongs to data",
        "training.lr=-1": "training.lr: must be a number, above 0 and at most 1e+30 (got -1)",
        "training.lr.x=1": 'training.lr: must be a number, above 0 and at most 1e+30 (got {"x": 1})',
        "training.lr=": "training.lr: must be a number, above 0 and at most 1e+30 (got null)",
        "model.hidden=[50, 0]": "model.hidden: entry 2 must be a whole number, at least 1 and at most 1048576 (got 0)",
        "model.hidden=[50": "model.hidden: not a value: the list or mapping begun in line 1 is not closed; ']' or a "
        "comma is missing",
        "model.residual=true": "model.hidden: widths must all be equal with residual: true (got [7, 8])",
        "data.rule.block=4": "data.rule.block: unknown key; known here: name, period",
        "data.rule.period=0": "data.rule.period: must be a whole number, at least 1 and at most 2147483647 (got 0)",
        "data.rule={name: repeating}": (
            "data.rule.block: missing; it must be a whole number, at least 1 and at most 2147483647"
        ),
        "data.rule={name: repeating, block: 2, block: 3}": "data.rule.block: given twice; the first is in line 1",
        "data.rule={name: repeating, blck: 2}": "data.rule.blck: unknown key; did you mean block?",
    }.items(),
)
def test_faults_of_options_are_named_by_the_option(write, option, fault):
    path = write("training:\n  lr: 1e-3\nmodel:\n  hidden: [7, 8]\ndata:\n  rule: {name: heartbeat, period: 5}\n")
    assert faults(path, option) == [f"--set {option}: {fault}"]


def test_options_change_the_file(write):
    path = write("training:\n  lr: fast\ndata:\n  rule: {name: heartbeat, period: 5}\n")
    c = config.load(
        path,
        ["training.lr=1", "training.lr = 1e-4", "training.clip_thresh=null", "data.rule.period=4", "model.hidden=[8]"],
    )
    assert (c.training.lr, c.training.clip_thresh, c.data.rule, c.model.hidden) == (
        1e-4,
        None,
        Heartbeat(period=4),
        (8,),
    )
    assert config.load(path, ["training.lr=1", "data.rule=null"]).data.rule is None
    assert config.load(path, ["training.lr=1", "data.rule={name: multiples, k: 5}"]).data.rule == Multiples(k=5)
    assert config.load(write(""), ["data.rule.name=repeating", "data.rule.block=10"]).data.rule == Repeating(block=10)


@pytest.mark.parametrize(
    ("given", "value"),
    {"1e-3": 1e-3, "1E5": 1e5, "+.5": 0.5, "3.": 3.0, "2": 2.0, "1.5e+3": 1500.0, "1e0": 1.0, "0.1e1": 1.0}.items(),
)
def test_numbers_as_people_write_them(write, given, value):
    lr = config.load(write(f"training:\n  lr: {given}\n")).training.lr
    assert lr == value and type(lr) is float


def test_what_cannot_be_read_is_one_sentence(write):
    write("")
    Path("folder").mkdir()
    assert faults("missing/config.yaml") == [
        "missing/config.yaml: there is no such file; create it (an empty one takes all defaults)"
    ]
    assert faults("folder") == ["folder: this is a folder; name the config.yaml in it"]
    assert faults("config.yaml/x") == ["config.yaml/x: cannot be read: Not a directory"]


def test_path_of_any_kind(write, tmp_path):
    write("training:\n  lr: 2\n")
    assert config.load(tmp_path / "config.yaml").training.lr == 2


# Everything that can be written down is read back.
COUNT = st.integers(1, 10**9)
CONFIGS = st.builds(
    Config,
    model=st.builds(
        Model,
        T=st.integers(1, 100_000),
        pi=st.floats(1e-9, 1 - 1e-9) | st.just("data"),
        net=st.just("mlp"),
        hidden=st.lists(st.integers(1, 1 << 20), min_size=1, max_size=4).map(tuple),
        skip=st.booleans(),
        dropout=st.floats(0, 1, exclude_max=True),
    ),
    training=st.builds(
        Training,
        lr=st.sampled_from([1e-3, 1e5, 1e16, 5e-324, 1e30, 1]) | st.floats(0, 1e30, exclude_min=True),
        clip_thresh=st.none() | st.floats(0, 1e30, exclude_min=True),
        seed=st.integers(0, 2**63 - 2),
        sample_steps=st.none() | COUNT,
        select=st.just("best"),
        patience=st.none() | COUNT,
    ),
    data=st.builds(
        Data,
        shape=st.none() | st.tuples(COUNT, COUNT),
        rule=st.none()
        | st.builds(Heartbeat, period=COUNT)
        | st.builds(Repeating, block=COUNT)
        | st.builds(Multiples, k=COUNT),
    ),
)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(CONFIGS)
def test_dump_loads_back(write, c):
    assert config.load(write(config.dump(c))) == c


BIG = 2**63 - 1
ABSURD = {
    "model.hidden": f"[{BIG}]", "model.num_sample_steps": 10**7, "model.time_features": 1026,
    "training.epochs": BIG, "training.steps_per_epoch": BIG, "training.save_every_n_epochs": BIG,
    "training.num_examples": 10**6, "training.num_val_samples": 10**18, "training.val_batch_size": BIG,
    "training.sample_steps": BIG, "training.patience": BIG, "training.lr": 1e308, "training.warmup_steps": BIG,
    "training.weight_decay": 1e308, "training.clip_thresh": 1e308, "training.bce_weight": 1e308,
    "data.batch_size": BIG, "data.shape": f"[{BIG}, 1]", "data.rule": f"{{name: heartbeat, period: {BIG}}}",
}  # fmt: skip


@pytest.mark.parametrize("name", ABSURD)
def test_every_number_has_a_limit(write, name):
    """An absurd size is one fault that names the setting and what it takes at most."""
    with pytest.raises(InputError) as caught:
        config.load(write(""), [f"{name}={ABSURD[name]}"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"--set {name}=") and f": {name}" in line and " at most " in line, line


def test_every_number_of_the_schema_has_a_limit():
    """No field takes a number of any size, whoever brings it."""
    for section in [*config.schema().sections.values(), Heartbeat, Repeating, Multiples]:
        for name, field in section.model_fields.items():
            text = expects(field.annotation, field.metadata)
            for numbers in re.findall(r"a (?:whole )?number(?:, [^,|]*)?", text):
                assert "at most" in numbers or "below" in numbers, (name, text)


def test_the_limits_leave_room():
    """What a large machine does is allowed."""
    for value in ("model.hidden=[65536, 65536]", "training.num_val_samples=1000000", "data.batch_size=1000000"):
        config.load(os.devnull, [value])


def test_steps_of_all_epochs_have_a_limit(write):
    """Each of two numbers is right on its own, and their product is counted in 32 bits."""
    with pytest.raises(InputError) as caught:
        config.load(write(""), ["training.epochs=1000000000000", "training.steps_per_epoch=1000000000"])
    assert str(caught.value) == (
        "--set training.epochs=1000000000000: training.epochs: are 2^32 steps or more with training.steps_per_epoch: "
        "1000000000; take fewer"
    )


def test_a_very_long_option_is_cut_where_it_is_named(write):
    """The place stays readable whatever the value."""
    with pytest.raises(InputError) as caught:
        config.load(write(""), [f"model.T={'9' * 5000}"])
    assert str(caught.value) == f"--set model.T={'9' * 89}...: model.T: the number is too long"


def test_dump_is_complete_and_in_order():
    lines = config.dump(Config(data=Data(shape=(28, 28), rule=Heartbeat(period=5)))).splitlines()
    fields = [line.split(":")[0].strip() for line in lines]
    expected = [name for section, model in config.schema().sections.items() for name in (section, *model.model_fields)]
    assert fields == [*expected, "name", "period"]
    assert "  hidden: [100]" in lines and "  shape: [28, 28]" in lines and "  patience: null" in lines


@FEW
@given(st.integers(0, len(REFERENCE) - 1), st.binary(max_size=3), st.integers(0, 4))
def test_a_damaged_file_is_read_or_explained(write, at, put, drop):
    """Whatever a few bytes become, there is a configuration or there are faults with places; never another
    exception."""
    try:
        config.load(write(REFERENCE.encode()[:at] + put + REFERENCE.encode()[at + drop :]))
    except InputError as e:
        assert all(line.startswith("config.yaml:") and line.split(":")[1].isdigit() for line in str(e).splitlines())


def test_configs_from_python_are_held_to_the_same():
    with pytest.raises(ValidationError, match="training.patience: needs training.select: best"):
        Config(training=Training(patience=3, select="last"))
    with pytest.raises(ValidationError, match="frozen"):
        Config().training.lr = 3


def test_every_field_is_documented():
    """The texts are printed as the reference: each has one line, ends as a sentence, and what it takes can be said in
    words."""
    for section in [*config.schema().sections.values(), Heartbeat, Repeating, Multiples, Config]:
        for name, field in section.model_fields.items():
            assert field.description and "\n" not in field.description and field.description.endswith("."), name
            assert section is Config or expects(field.annotation, field.metadata)
    assert (
        expects(Training.model_fields["epochs"].annotation, Training.model_fields["epochs"].metadata)
        == "a whole number, at least 1 and at most 1000000000000"
    )


def test_yaml_lines_keeps_the_first_of_two_and_both_places():
    document = yaml_lines.parse("a: 1\nb: [x, 2.5]\na: 3\n")
    assert document.data == {"a": 1, "b": ["x", 2.5]}
    assert document.keys == {("a",): (1, 1), ("b",): (2, 1)} and document.values[("b", 1)] == (2, 8)
    assert document.faults == [(("a",), (3, 1), "given twice; the first is in line 1")]


def test_reading_a_config_loads_no_plotting():
    code = "import sys, bdiff_np.config; print([m for m in ('matplotlib', 'numba', 'cupy') if m in sys.modules])"
    root = Path(config.__file__).parents[2]
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
        == "[]\n"
    )
