"""YAML with places: every key and value of a small text knows its line and column, and what YAML lets pass silently is
a fault.

The dialect is plain: null, true, false, decimal numbers (1e-3 among them), words, lists and mappings. yes, no, on, off,
1:30 and 010 are words, which the schema then refuses, where YAML 1.1 makes True, False, 90 and 8 of them. Anchors,
aliases and tags are refused: nothing here needs them, and an alias can make a short text grow without bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]  # keys and list indices from the root, such as ("model", "hidden", 1)
Place = tuple[int, int]  # line and column, both from 1


class YamlFault(ValueError):
    """The text is not YAML of this dialect. `place` is the line and column, the message the reason."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place = place


@dataclass
class Document:
    """A parsed text. `faults` holds what the parser can step over: (path, place, reason); the value it keeps is the
    first one given."""

    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)  # where the key of a mapping entry stands
    # where a value begins; () is the root, absent in an empty text
    values: dict[Path, Place] = field(default_factory=dict)
    faults: list[tuple[Path, Place, str]] = field(default_factory=list)


_FLOAT = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
# One table for reading and writing, so that whatever `dump` leaves unquoted is read back as the same type.
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            reason = (
                "anchors (&), aliases (*) and tags (!) are not used here; write the value itself, or put it in quotes"
            )
            raise yaml.MarkedYAMLError(problem=reason, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict = {}


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Dumper.add_representer(
    tuple, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


# PyYAML's words -> ours; {line} is where the unfinished thing began.
_REASONS = (
    (r"found character '\\t'", "a tab stands here; indent and separate with spaces"),
    (r"found character '(.)'", "a value cannot begin with '{0}'; put it in quotes"),
    (
        r"mapping values are not allowed",
        "this ':' is not expected; is a ':' missing in the line above, or is the indentation wrong?",
    ),
    (r"could not find expected ':'", "the key begun in line {line} has no ':' after it"),
    (r"expected <block end>", "the indentation does not fit the lines above"),
    (r"expected ',' or '(.)'", "the list or mapping begun in line {line} is not closed; '{0}' or a comma is missing"),
    (r"found unexpected (end of stream|document separator)", "the quotation mark opened in line {line} is not closed"),
    (r"found another document", "a second document begins here; one is expected"),
)


def parse(text: str) -> Document:
    """Parse one YAML document; an empty text gives `data` None.

    Raises YamlFault where the text cannot be parsed at all: there is then one fault, the first.
    """
    try:
        loader = _Loader(text)
        document, node = Document(), loader.get_single_node()
        if node is not None:
            document.data = _construct(loader, node, (), document)
        return document
    except yaml.reader.ReaderError as e:
        before = text[: e.position]
        place = before.count("\n") + 1, e.position - before.rfind("\n")
        raise YamlFault(place, f"the character U+{ord(text[e.position]):04X} is not allowed in YAML") from None
    except yaml.MarkedYAMLError as e:
        raise YamlFault(_place(e.problem_mark or e.context_mark), _reason(e)) from None
    except RecursionError:
        raise YamlFault((1, 1), "lists and mappings are nested too deeply") from None


def dump(data: Any) -> str:
    """YAML text of mappings, lists and scalars, in the order given; tuples become lists in one line. `parse` reads it
    back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


def _construct(loader: _Loader, node: yaml.Node, path: Path, document: Document) -> Any:
    document.values[path] = _place(node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*path, i), document) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except ValueError:  # Python refuses to read an integer of more than 4300 digits
            document.faults.append((path, _place(node.start_mark), "the number is too long"))
            return None
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        place = _place(key.start_mark)
        if not isinstance(key, yaml.ScalarNode):
            document.faults.append((path, place, "a key must be one word, not a list or a mapping"))
        elif key.value in mapping:
            inner = (*path, key.value)
            document.faults.append((inner, place, f"given twice; the first is in line {document.keys[inner][0]}"))
        else:
            inner = (*path, key.value)
            document.keys[inner] = place
            mapping[key.value] = _construct(loader, value, inner, document)
    return mapping


def _place(mark: Any) -> Place:
    return mark.line + 1, mark.column + 1


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "not YAML").removeprefix("but ")
    begun = _place(error.context_mark)[0] if error.context_mark else 1
    for pattern, reason in _REASONS:
        if match := re.match(pattern, problem):
            return reason.format(*match.groups(), line=begun)
    return problem
