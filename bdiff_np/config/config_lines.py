"""A YAML file and `--set` options held against pydantic sections: every fault in plain words, at the line and column
where it stands.

It knows no field by name: the schema is an argument, and what a message says a field takes is read from the field's
type and limits.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bdiff_np.config import yaml_lines
from bdiff_np.config.yaml_lines import Path
from bdiff_np.errors import InputError, short
from bdiff_np.runfolder.files import check_regular
from bdiff_np.settings import NAME

OPTION = float("inf")  # the line of a --set option: after all lines of the file
SECTIONS = ("model", "training", "data")
SchemaOf = Callable[[Mapping[str, Any]], tuple[Any, Iterable[tuple[Path, str]]]]


class Place(NamedTuple):
    """Where a value was given. Places sort as a reader meets them: the file by line and column, then the options in
    their order."""

    line: float
    column: int
    label: str  # what a message begins with


def read(name: str, sets: Sequence[str], schema: SchemaOf) -> dict[str, Any]:
    """The sections in the file `name`, changed by the options `sets`.

    `schema(model)` gives, for the raw section `model`, something with `sections` (name -> class) and
    `disagreements(**sections)`, and the faults of the names that chose it. `disagreements` yields the faults of fields
    that are right on their own: the paths that take part, the one to blame first, and the reason. It is asked about
    what could be read; an answer that rests on a field already at fault is dropped.

    Raises InputError with one line per fault.
    """
    return _Reading(name, sets, schema).result()


def expects(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a field takes, in plain words: `expects(field.annotation, field.metadata)` gives "a whole number, at least
    1, or null"."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expects(args[0], [limit for part in args[1:] for limit in getattr(part, "metadata", [part])])
    if origin in (Union, UnionType):
        texts = [expects(part, metadata) for part in args if part is not type(None)]
        return ", or ".join(texts) + (", or null" if type(None) in args else "")
    if origin is Literal:
        return f"the word {args[0]}" if len(args) == 1 else "one of " + ", ".join(args)
    if origin is tuple:
        most = next((f"one to {m.max_length}" for m in metadata if getattr(m, "max_length", None)), "one or more")
        return f"a list of {most if args[-1] is Ellipsis else len(args)} entries, each {expects(args[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = {
            key: " or ".join(_words(field.annotation)) or ("true or false" if field.annotation is bool else "N")
            for key, field in annotation.model_fields.items()
        }
        return f"{{{', '.join(f'{key}: {text}' for key, text in inner.items())}}}"
    texts_of = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    text = texts_of.get(annotation, f"of the type {annotation}")
    if annotation is str and any(getattr(m, "pattern", None) == NAME for m in metadata):
        text = "a name of small letters, digits and _"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [f"{words[w]} {getattr(m, w)}" for m in metadata for w in words if hasattr(m, w)]
    limits += ["even" for m in metadata if getattr(m, "multiple_of", None) == 2]
    return ", ".join([text, " and ".join(limits)] if limits else [text])


def option(text: str) -> str:
    """What a message about a --set option begins with: the option, short and in one line."""
    return f"--set {short(text if text.isprintable() else json.dumps(text), 100)}"


class _Reading:
    """One reading of a file and its options: the raw values, where each was given, and the faults so far."""

    def __init__(self, name: str, sets: Sequence[str], schema: SchemaOf) -> None:
        self.name = name
        self.faults: list[tuple[Place, str]] = []
        # fields at fault, or meant by a misspelt key: no rule of two fields is held against them
        self.suspects: set[Path] = set()
        try:
            document = yaml_lines.parse(self._text())
        except yaml_lines.YamlFault as e:
            raise InputError(f"{self._at(e.place).label}: {e}") from None
        self.keys = {path: self._at(place) for path, place in document.keys.items()}
        self.values = {path: self._at(place) for path, place in document.values.items()}
        for path, place, reason in document.faults:
            self._fault(self._at(place), path, reason)
        self.raw: dict[str, Any] = {} if document.data is None else document.data
        if not isinstance(self.raw, dict):
            raise InputError(
                f"{self._value_place(()).label}: must hold the sections {', '.join(SECTIONS)} (got {_shown(self.raw)})"
            )
        for section in SECTIONS:
            value = self.raw.get(section)
            if not isinstance(value, dict | None):
                self._fault(
                    self._value_place((section,)), (section,), f"must be a section of keys (got {_shown(value)})"
                )
            self.raw[section] = value if isinstance(value, dict) else {}
        for order, text in enumerate(sets):
            self._set(text, Place(OPTION, order, option(text)))
        self.schema, faults = schema(self.raw["model"] if isinstance(self.raw["model"], dict) else {})
        self.sections: Mapping[str, type[BaseModel]] = self.schema.sections
        self.misnamed = bool(faults)
        for path, reason in faults:
            self._fault(self._value_place(path), path, reason)

    def result(self) -> dict[str, Any]:
        for key in [key for key in self.raw if key not in self.sections]:
            self._unknown((key,), self.sections)
        sections = {name: self._section(name) for name in self.sections}
        for paths, reason in self.schema.disagreements(**sections):
            if not self.suspects.intersection({*paths, *(path[:1] for path in paths)}):
                given = [self.values[path] for path in paths if path in self.values]
                self._fault(next((place for place in given if place.line == OPTION), given[0]), paths[0], reason)
        if self.faults:
            raise InputError("\n".join(f"{place.label}: {text}" for place, text in sorted(self.faults)))
        return sections

    def _section(self, name: str) -> BaseModel:
        """The section of the given values; where some are at fault, of the others."""
        section, raw = self.sections[name], self.raw[name]
        try:
            return section.model_validate(raw)
        except ValidationError as e:
            # Misspelt keys come before missing ones, a list's entries before the list: the later of each pair is then
            # left unsaid.
            for error in sorted(e.errors(), key=lambda error: (error["type"] != "extra_forbidden", -len(error["loc"]))):
                self._schema_fault((name,), section, error["loc"], error["type"], error["input"])
        return section.model_validate(
            {key: value for key, value in raw.items() if (name, key) not in {path[:2] for path in self.suspects}}
        )

    def _schema_fault(self, prefix: Path, section: type[BaseModel], loc: Path, kind: str, value: Any) -> None:
        """Say in plain words what pydantic found at `loc`, which names branches of unions beside keys and indices."""
        key, *rest = loc
        if kind == "extra_forbidden" and not rest:
            if self.misnamed:  # a family or a net that is not known has settings that are not either
                return self.suspects.add((*prefix, key))
            return self._unknown((*prefix, key), section.model_fields)
        field = section.model_fields[str(key)]
        path, kinds = (*prefix, key), _kinds(field) if field.discriminator else {}
        if len(rest) > 1 and rest[0] in kinds:
            return self._schema_fault(path, kinds[rest[0]], tuple(rest[1:]), kind, value)
        if rest and not kinds and (inner := _model(field.annotation)):
            return self._schema_fault(path, inner, tuple(rest), kind, value)
        missing, lead = kind == "missing" and not rest, "must be"
        wanted, words = expects(field.annotation, field.metadata), _words(field.annotation)
        if kind.startswith("union_tag"):
            path, words = (*path, str(field.discriminator)), list(kinds)
            missing, value, wanted = path[-1] not in value, value.get(path[-1]), expects(Literal[tuple(kinds)])
        elif rest and isinstance(rest[0], int) and kind != "missing":
            path, lead, wanted = (*path, rest[0]), f"entry {rest[0] + 1} must be", expects(_entry(field.annotation))
        elif missing and path in self.suspects or any(suspect[:-1] == path for suspect in self.suspects):
            return
        near = nearest(value, words) if isinstance(value, str) else None
        got = f"{lead} {wanted} (got {_shown(value)})" + (f"; did you mean {near}?" if near else "")
        self._fault(self._value_place(path), path, f"missing; it must be {wanted}" if missing else got)

    def _unknown(self, path: Path, known: Any) -> None:
        """Fault of a key that is not in the schema, with the key that was probably meant, which is then not held to be
        left out."""
        key, owners = (
            str(path[-1]),
            {field: name for name, section in self.sections.items() for field in section.model_fields},
        )
        hint = f"known here: {', '.join(known)}"
        if key in ("backend", "device", "gpu"):
            hint = "the back end is chosen on the command line, by --backend"
        elif key in owners:
            self.suspects.add((owners[key], key))
            hint = f"it belongs to {owners[key]}"
        elif near := nearest(key, known):
            self.suspects.add((*path[:-1], near))
            hint = f"did you mean {near}?"
        elif near := nearest(key, owners):
            self.suspects.add((owners[near], near))
            hint = f"did you mean {owners[near]}.{near}?"
        self._fault(self.keys.get(path) or self._value_place(path), path, f"unknown key; {hint}")

    def _set(self, text: str, place: Place) -> None:
        """Put the value of one option in place of the file's."""
        key, equals, value = text.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            return self.faults.append((place, "write --set section.key=value, such as --set training.lr=1e-3"))
        if len(path) == 1 and key.strip() in SECTIONS:
            return self._fault(place, path, f"is a section; set one key of it, as in --set {path[0]}.KEY=VALUE")
        try:
            document = yaml_lines.parse(value)
        except yaml_lines.YamlFault as e:
            return self._fault(place, path, f"not a value: {e}")
        for inside, _, reason in document.faults:
            self._fault(place, (*path, *inside), reason)
        for marks in (self.keys, self.values):
            for stale in [other for other in marks if other[: len(path)] == path]:
                del marks[stale]
        mapping = self.raw
        for n, part in enumerate(path[:-1], 1):
            if not isinstance(mapping.get(part), dict):
                mapping[part] = {}
                self.keys[path[:n]] = self.values[path[:n]] = place
            mapping = mapping[part]
        mapping[path[-1]] = document.data
        self.keys[path] = self.values[path] = place

    def _text(self) -> str:
        if self.name != os.devnull and not os.path.isdir(self.name):
            check_regular(self.name)
        try:
            content = FilePath(self.name).read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"{self.name}: there is no such file; create it (an empty one takes all defaults)"
            ) from None
        except IsADirectoryError:
            raise InputError(f"{self.name}: this is a folder; name the config.yaml in it") from None
        except OSError as e:
            raise InputError(f"{self.name}: cannot be read: {e.strerror}") from None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            before = e.object[: e.start]
            place = self._at((before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8")) + 1))
            raise InputError(
                f"{place.label}: not UTF-8 text (byte 0x{e.object[e.start]:02x}); save the file as UTF-8"
            ) from None

    def _at(self, place: yaml_lines.Place) -> Place:
        return Place(*place, f"{self.name}:{place[0]}:{place[1]}")

    def _value_place(self, path: Path) -> Place:
        """Where the value stands, or the nearest that holds it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, self._at((1, 1)))

    def _fault(self, place: Place, path: Path, reason: str) -> None:
        self.suspects.add(path)
        where = f"{_dotted(path)}: " if path else ""
        if not any(place == other and text.startswith(where) for other, text in self.faults):
            self.faults.append((place, f"{where}{reason}"))


def _kinds(field: FieldInfo) -> dict[Any, type[BaseModel]]:
    """The branches of a union told apart by one key, by the value of that key."""
    return {
        kind.model_fields[str(field.discriminator)].default: kind
        for kind in get_args(field.annotation)
        if kind is not type(None)
    }


def _model(annotation: Any) -> type[BaseModel] | None:
    """The one class of settings that a field is, or null."""
    parts = [part for part in get_args(annotation) or (annotation,) if part is not type(None)]
    return parts[0] if len(parts) == 1 and isinstance(parts[0], type) and issubclass(parts[0], BaseModel) else None


def _entry(annotation: Any) -> Any:
    """The type of a tuple's entries; the tuple may be one branch of a union."""
    return next(get_args(part)[0] for part in (annotation, *get_args(annotation)) if get_origin(part) is tuple)


def _words(annotation: Any) -> list[str]:
    """The words that a field takes."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _words(part)]


def nearest(word: str, words: Any) -> str | None:
    """The one of some words that a misspelt one probably means, None where none is near."""
    lowered = {other.lower(): other for other in words}
    return next((lowered[match] for match in difflib.get_close_matches(word.lower(), lowered, n=1)), None)


def _dotted(path: Path) -> str:
    return ".".join(
        part if part.isprintable() and len(part) <= 60 else _shown(part) for part in path if isinstance(part, str)
    )


def _shown(value: Any) -> str:
    """A value as it would stand in the file, in one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():  # YAML knows more line ends than JSON
        text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
