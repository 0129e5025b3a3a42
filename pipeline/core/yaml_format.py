"""YAML as this project reads and writes it: one loader for recipes, locks, mixtures, ablations and lists.

UTF-8, the core schema of YAML 1.2 (`1e-3` is a number, `no` a text, `2024-01-01` too), no tags, and no key twice. What
would take memory or time without end is refused: deep nesting, aliases that multiply or contain themselves, integers of
more than 64 bits.
"""

from __future__ import annotations

import math
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from vlmill.pipeline.core.errors import RecipeError

DEEPEST = 64
"""Levels of lists and mappings in each other."""
MULTIPLIED = 100_000
"""Values that aliases may add to those that are written down."""
DIGITS = 20
"""Characters of an integer of 64 bits, with its sign."""

KEPT, KEPT_CHARACTERS = 16, 1 << 20
"""Texts that are parsed once in a process, and how long one is at most."""

INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
SCALARS = (  # the first that matches counts
    ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    (INT, re.compile(r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+"), list("-+0123456789")),
    (FLOAT, NUMBER, list("-+.0123456789")),
    ("tag:yaml.org,2002:merge", re.compile(r"<<"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with other scalars, and within bounds."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own way; filled below

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where, self.depth, self.written = where, 0, 0
        self.sizes = dict[int, int]()  # of complete nodes, aliases counted as what they stand for

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node, with all that is in it."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            anchored = self.anchors.get(event.anchor)
            if anchored is not None and id(anchored) not in self.sizes:
                self._refuse(event, f"alias *{event.anchor} stands inside of what it means")
        elif event.tag not in (None, "!"):
            self._refuse(event, f"tag {event.tag!r}; a value has no tags here")
        if self.depth == DEEPEST:
            self._refuse(event, f"lists and mappings are nested deeper than {DEEPEST} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and id(node) not in self.sizes:
            self._count(node)
        return node

    def _count(self, node: yaml.Node) -> None:
        self.written += 1
        inside = node.value if isinstance(node, yaml.CollectionNode) else ()
        children = [child for item in inside for child in (item if isinstance(item, tuple) else (item,))]
        self.sizes[id(node)] = size = 1 + sum(self.sizes[id(child)] for child in children)
        if size > self.written + MULTIPLIED:
            self._refuse(node, f"aliases make {size} values out of {self.written}; they may add {MULTIPLIED}")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The next mapping, each of its keys once."""
        node = super().compose_mapping_node(anchor)
        lines = dict[tuple[str, str], int]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if first := lines.get((key.tag, key.value)):
                    self._refuse(key, f"key {key.value!r:.80} stands there twice, first in line {first}; leave one out")
                lines[key.tag, key.value] = key.start_mark.line + 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """An integer of 64 bits. Digits may be grouped by `_`."""
        text = node.value.replace("_", "")
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        if len(text) > DIGITS or abs(value := int(text, base)) >= 1 << 63:
            self._refuse(node, f"an integer of {len(text)} characters; it may have 64 bits, as {(1 << 63) - 1} has")
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """A number as JSON and YAML 1.2 write it."""
        text = node.value.replace("_", "").lower()
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        if math.isinf(value) and not text.endswith(".inf"):
            self._refuse(node, f"{node.value:.80} is larger than any number of 64 bits")
        return value

    def _refuse(self, at: Any, fault: str) -> None:
        raise RecipeError(f"{self.where}, line {at.start_mark.line + 1}: {fault}")


for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern.pattern})$"), _first)
_Loader.add_constructor(INT, _Loader.construct_yaml_int)
_Loader.add_constructor(FLOAT, _Loader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """Puts into quotation marks what this loader, or one of YAML 1.1, would take for something else than a text."""


_Dumper.add_implicit_resolver(FLOAT, re.compile(rf"^(?:{NUMBER.pattern})$"), list("-+.0123456789"))


Lines = dict[tuple[Any, ...], int]
"""Where values stand: the keys and list places on the way to one -> its line, counted from 1."""


def read_yaml(path: Path) -> Any:
    """What stands in a YAML file.

    Raises:
        RecipeError: it is no UTF-8 or no YAML, or breaks a rule of this module; the message names file and line.
    """
    return parse_yaml(_read_text(path), str(path))


def read_yaml_lines(path: Path) -> tuple[Any, Lines]:
    """What stands in a YAML file, and the line of every value in it.

    A value that came by an alias or a merge has the line where it is written down. Raises RecipeError as `read_yaml`.
    """
    lines: Lines = {}
    return _load_text(_read_text(path), str(path), lines), lines


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4096]:
        raise RecipeError(f"{path} is UTF-16 or no text; save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise RecipeError(f"{path} starts with a byte order mark; save it as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8; save it as UTF-8"
        ) from None


def parse_yaml(text: str, where: str) -> Any:
    """What a text says in YAML; `where` is its name in errors.

    Raises:
        RecipeError: it is no YAML, or breaks a rule of this module.
    """
    return deepcopy(_load_kept(text, where)) if len(text) <= KEPT_CHARACTERS else _load_text(text, where)


@lru_cache(KEPT)
def _load_kept(text: str, where: str) -> Any:
    """The same, which nobody may change: a command reads the lock of its run many times."""
    return _load_text(text, where)


def _load_text(text: str, where: str, lines: Lines | None = None) -> Any:
    try:
        loader = _Loader(text, where)
        loader.name = where
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is no YAML: {error}") from error
    if node is not None and lines is not None:
        _note_lines(loader, node, (), lines)
    return data


def _note_lines(loader: _Loader, node: yaml.Node, path: tuple[Any, ...], lines: Lines) -> None:
    """Note the line of a constructed node and of all in it; merges were written out when it was constructed."""
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:  # of a key that a merge brings as well, the last counts
            _note_lines(loader, value, (*path, loader.construct_object(key)), lines)
            if not isinstance(value, yaml.ScalarNode):  # a block begins where its key stands
                lines[*path, loader.construct_object(key)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _note_lines(loader, value, (*path, place), lines)


def format_yaml_inline(value: Any) -> str:
    """Plain data as YAML in one line, for the place behind a key."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=math.inf,
        default_flow_style=True,
        default_style=style,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def format_yaml(value: Any, *, sort_keys: bool = True, width: int = 120) -> str:
    """Plain data as YAML that `parse_yaml` reads back, the same text for the same data."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=sort_keys, allow_unicode=True, width=width)
