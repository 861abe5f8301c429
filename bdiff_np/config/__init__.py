"""config.yaml: what can be set, and every fault of it at once, each as file:line:column.

The settings stand in the module that they describe (bdiff_np/settings.py); here those of the configured family, net and
kind of data are put together with the optimiser's and the training's own. `load` reads a file and the options `--set
section.key=value`; `dump` writes the resolved configuration, which `load` reads back to an equal one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, create_model, model_validator

from bdiff_np import guests
from bdiff_np.config import config_lines, yaml_lines
from bdiff_np.config.training import DataSettings, ModelSettings, TrainingSettings
from bdiff_np.errors import InputError
from bdiff_np.optim.adamw import AdamWSettings
from bdiff_np.settings import Disagreements, Settings


class Config(Settings):
    """All of config.yaml. Made by `load` or `validate`; `schema` has the class with the sections' fields in it."""

    owners: ClassVar[Sequence[type[Settings]]] = ()  # the classes that the sections' fields come from

    model: Any
    """The diffusion and its network."""
    training: Any
    """The optimiser, and what is recorded on the way."""
    data: Any
    """How rows are read, and what is known of them."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Config:
        sections = {"model": self.model, "training": self.training, "data": self.data}
        faults = [f"{'.'.join(paths[0])}: {reason}" for paths, reason in disagreements(self.owners, **sections)]
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Schema(NamedTuple):
    """What can be set for one family and one net.

    sections : name -> class. owners : the classes that the fields come from. Config : the class of the whole
    """

    sections: dict[str, type[Settings]]
    owners: list[type[Settings]]
    Config: type[Config]

    def disagreements(self, **sections) -> Disagreements:
        """Faults of fields that are right on their own."""
        yield from disagreements(self.owners, **sections)


def disagreements(owners: Sequence[type[Settings]], **sections) -> Disagreements:
    """Faults of fields that are right on their own, of all the owners of fields."""
    for owner in owners:
        yield from owner.disagreements(**sections)


def schema(family: str | None = None, net: str | None = None) -> Schema:
    """The schema for a family and a net, the defaults for None. Raises InputError for a name without a file."""
    fields = ModelSettings.model_fields
    return _schema(family or fields["family"].default, net or fields["net"].default)


@lru_cache
def _schema(family: str, net: str) -> Schema:
    process, network = guests.find("diffusion", family), guests.find("nets", net)
    kind = guests.find("data", process.data)
    owners = {
        "model": [ModelSettings, process.Settings, network.Settings],
        "training": [TrainingSettings, AdamWSettings, process.Training],
        "data": [DataSettings, kind.Settings],
    }
    for section, parts in owners.items():
        _check(section, parts)
    # pydantic lists the fields of the last base first.
    classes = {name: type(name.title(), _bases(parts), {"__doc__": parts[0].__doc__}) for name, parts in owners.items()}
    texts = {name: field.description for name, field in Config.model_fields.items()}
    fields: Any = {name: (section, Field(section(), description=texts[name])) for name, section in classes.items()}
    whole = create_model("Config", __base__=Config, **fields)
    whole.owners = [part for parts in owners.values() for part in parts]
    return Schema(classes, whole.owners, whole)


def _check(section: str, parts: Sequence[type[Settings]]) -> None:
    """Raises InputError for a field that two classes of a section claim, or that has no default."""
    owner: dict[str, type[Settings]] = {}
    for part in parts:
        for field, info in part.model_fields.items():
            if info.is_required():
                raise InputError(f"{part.__module__}: {section}.{field} has no default; every setting needs one")
            if owner.setdefault(field, part) is not part:
                raise InputError(
                    f"{part.__module__}: {section}.{field} is a setting of {owner[field].__module__} too; rename it"
                )


def _bases(parts: Sequence[type[Settings]]) -> tuple[type[Settings], ...]:
    return tuple(dict.fromkeys(part for part in reversed(parts) if part is not Settings))


def load(path: str | os.PathLike[str], sets: Sequence[str] = ()) -> Config:
    """The configuration in the file `path`, changed by `sets`: texts such as "training.lr=1e-3", the later one winning.

    Raises
    ------
    InputError : one line per fault, all of them, as `config.yaml:11:15: training.batch_size: ...`; a fault of an option
        begins with `--set ...`. A text that is not YAML has one fault, the first; beside a family or a net that is not
        known, unknown keys are no faults, for they may be its own.
    """
    sections = config_lines.read(os.fspath(path), sets, _schema_of)
    return schema(sections["model"].family, sections["model"].net).Config(**sections)


def of(values: Mapping[str, Any], call: str = "fit") -> Config:
    """The configuration of settings given from Python, by their names alone: {"lr": 1e-3, "hidden": [64]}.

    Raises InputError, one line per fault, each beginning with the argument: `fit(lr=...): must be a number`.
    """
    sections = schema(
        *(values[name] if isinstance(values.get(name), str) else None for name in ("family", "net"))
    ).sections
    owner = {field: name for name, section in sections.items() for field in section.model_fields}
    sets, faults = {}, []
    for name, value in values.items():
        label = f"{call}({name}=...): "
        near = config_lines.nearest(name, owner)
        if name not in owner:
            faults.append(
                f"{label}unknown key" + (f"; did you mean {near}?" if near else f"; known here: {', '.join(owner)}")
            )
            continue
        try:
            text = json.dumps(value, default=lambda number: number.tolist())
        except (TypeError, ValueError, AttributeError):
            faults.append(f"{label}{type(value).__name__} is not a value of a setting")
            continue
        sets[f"{owner[name]}.{name}={text}"] = f"{owner[name]}.{name}: ", label
    if faults:
        raise InputError("\n".join(faults))
    try:
        return load(os.devnull, list(sets))
    except InputError as fault:
        said = str(fault)
    for text, (path, argument) in sets.items():
        place = config_lines.option(text)
        said = said.replace(f"{place}: {path}", argument).replace(f"{place}: ", argument)
    raise InputError(said)


def _schema_of(model: Mapping[str, Any]) -> tuple[Schema, list[tuple[tuple[str, str], str]]]:
    """The schema that a raw section `model` asks for, and faults of the names in it, each with its path."""
    asked, faults = {}, []
    for field, package in (("family", "diffusion"), ("net", "nets")):
        name = model.get(field)
        if isinstance(name, str) and name.isidentifier() and name.islower():  # other names are refused as such
            try:
                guests.find(package, name)
                asked[field] = name
            except InputError as fault:
                faults.append((("model", field), str(fault)))
    return schema(**asked), faults


def validate(raw: Mapping[str, Any]) -> Config:
    """The configuration that a checkpoint holds. Raises ValueError (pydantic's, or InputError for a family or a net
    that is not there)."""
    for setting, value in meant(raw).items():
        section, field = setting.split(".")
        raw = {**raw, section: {**raw.get(section, {}), field: value}}
    model = raw.get("model", {})
    return schema(model.get("family"), model.get("net")).Config.model_validate(raw)


def meant(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a whole configuration of an earlier version means and does not say, "section.field" -> value: without
    data.val nothing was held out, and patience: null never stopped early. raw : its sections"""
    if "val" in (raw.get("data") or {}):
        return {}
    patience = (raw.get("training") or {}).get("patience")
    return {"data.val": "none"} | ({"training.patience": "never"} if patience is None else {})


def given(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """What a file that `load` can read says itself: section -> field -> value."""
    data = yaml_lines.parse(open(path, encoding="utf-8-sig").read()).data or {}
    return {section: fields or {} for section, fields in data.items()}


def place(path: str | os.PathLike[str], setting: str, sets: Sequence[str] = ()) -> str:
    """Where a setting such as "data.shape" was given: the last of the options `sets` that gives it, or a part of it,
    else the file as file:line:column; the file alone where it does not stand there."""
    for text in reversed(sets):
        key = text.partition("=")[0].strip()
        if f"{setting}.".startswith(f"{key}.") or key.startswith(f"{setting}."):
            return config_lines.option(text)
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise FileNotFoundError
        place = yaml_lines.parse(open(path, encoding="utf-8-sig").read()).values.get(tuple(setting.split(".")))
    except (OSError, ValueError):
        place = None
    name = os.fspath(path) if os.fspath(path) != os.devnull else "config.yaml"
    return f"{name}:{place[0]}:{place[1]}" if place else name


def dump(config: Config) -> str:
    """The whole configuration as YAML, defaults included, in the order of the schema."""
    return yaml_lines.dump(config.model_dump())
