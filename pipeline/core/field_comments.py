"""What the code says of fields of classes: an `Attributes:` section, docstrings, and the comment behind a field.

The reference of recipes is written from it, and `help()` of what the Python API returns has it.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from textwrap import dedent
from typing import Any, get_args, get_type_hints

ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
OURS = "vlmill."


def read_fields(block: type[Any]) -> Mapping[str, str]:
    """What the code says of each field of a class and of those that it inherits: field -> text."""
    found: dict[str, str] = {}
    for owner in reversed(block.__mro__):
        if owner.__module__.startswith(OURS):
            found |= _read_comments(owner)
            section = inspect.cleandoc(owner.__doc__ or "").partition("\n\nAttributes:\n")[2]
            found |= dict(ATTRIBUTE.findall(section))
    return found


def complete_docstrings(block: type[Any]) -> None:
    """Put what the code says of fields into the docstring of a class of ours, and of all classes that its fields hold.

    Where there is no source, docstrings stay as they are.
    """
    for one in dict.fromkeys(list_classes(block, set())):
        said = inspect.cleandoc(one.__doc__ or "")
        try:
            texts = read_fields(one)
        except OSError:
            return
        head, _, section = said.partition("\n\nAttributes:\n")
        told = {**dict(ATTRIBUTE.findall(section)), **texts}
        if lines := [f"    {name}: {told[name]}" for name in list_fields(one) if name in told]:
            one.__doc__ = "\n".join([f"{head}\n\nAttributes:", *lines])


def list_fields(block: type[Any]) -> list[str]:
    """The names of the fields of a dataclass or a named tuple that are for people."""
    names = [field.name for field in fields(block)] if is_dataclass(block) else getattr(block, "_fields", ())
    return [name for name in names if not name.startswith("_")]


def list_classes(block: Any, seen: set[Any]) -> Iterator[type[Any]]:
    """A class of ours with fields, and all that these hold."""
    if block in seen or not isinstance(block, type) or not block.__module__.startswith(OURS) or not list_fields(block):
        return
    seen.add(block)
    yield block
    for hint in get_type_hints(block).values():
        for held in _list_parts(hint):
            yield from list_classes(held, seen)


def _list_parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _list_parts(part)


def _read_comments(owner: type[Any]) -> dict[str, str]:
    """The comments and docstrings of a class's fields."""
    source = dedent(inspect.getsource(owner))
    comments = {
        token.start[0]: token.string.removeprefix("# fmt: skip").lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.startswith("# noqa")
    }
    found, last = dict[str, str](), ""
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.target.id
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            if text := " ".join(comments[line] for line in lines if line in comments):
                found[last] = text
        elif last and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[last] = " ".join(str(node.value.value).split())
        else:
            last = ""
    return found
