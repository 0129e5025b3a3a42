"""Messages in the words of whoever reads them: options on the command line, arguments in Python.

The packages below write options, `--out DIR`, and commands, `vlmill verify DIR`. Behind the API's boundary
(boundary.py) the same text names what a call takes, `out=DIR` and `vlmill.open_run(DIR).verify()`. What has no
counterpart in Python, such as `vlmill new`, stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from vlmill.pipeline.core.errors import VlmillError

FLAGS = ("accept-changes", "dry-run", "rebuild", "retry-failed")
"""Options without a value: arguments that are True."""

VALUES = {
    name: name.replace("-", "_")
    for name in (
        *("examples", "images", "limit", "order", "out", "ranks", "ray", "reason", "samples"),
        *("scale", "shard-bytes", "shard-samples", "stage", "step", "to", "until", "workers"),
    )
} | {"from": "source_run"}
"""Options of one value -> the argument."""

LISTS = {"domain": "domains", "filter": "filters", "id": "ids", "sha256": "sha256", "trust-code": "trust_code"}
LISTS |= {"url": "urls", "row-id": "row_ids"}
"""Options that may be given several times -> the argument, a list."""

PAIRS = {"set": "settings", "source": "sources"}
"""Options of a name and a value -> the argument, a dict."""

MACHINE = ("device", "readers", "recompute", "compile", "reduce-after", "shards", "threads", "wandb")
"""Options that are fields of `vlmill.Machine`."""

CALLS = {
    "build": "vlmill.build({})",
    "check": "vlmill.check_recipe({})",
    "clean": "vlmill.open_run({}).clean()",
    "disclose": "vlmill.open_run({}).disclose({})",
    "report": "vlmill.open_run({}).funnel()",
    "report --reason": "vlmill.open_run({}).sample_losses({})",
    "status": "vlmill.open_run({}).status()",
    "takedown": "vlmill.open_run({}).takedown({})",
    "trace": "vlmill.open_run({}).trace({})",
    "train": "vlmill.open_run({}).train({})",
    "verify": "vlmill.open_run({}).verify()",
}
"""Commands -> the calls that do the same, with a place for the run's folder and one for arguments."""

KNOWN = {*FLAGS, *VALUES, *LISTS, *PAIRS, *MACHINE}
"""Options that are arguments in Python."""

LOADING = ("filters", "limit", "scale", "settings", "sources", "trust_code")
"""Arguments of `load_recipe`, whose result `build` takes."""

PROSE = (
    *("a", "and", "asks", "counts", "does", "finds", "gives", "has", "is", "moves", "or", "plans", "says", "shows"),
    *("that", "to", "tries", "which", "with", "writes"),
)
"""Words that follow an option or a command in a message, and are no value of it."""

_VALUE = (
    rf"(?!--|(?:{'|'.join(PROSE)})(?![\w./=-]))"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s=]+=[\[{'\"].*?[\]}'\"](?=[\s:;,.)`]|$)|[^\s`]*[^\s:;,.)`])"
)
_OPTION = rf"--(?:(?:{'|'.join(FLAGS)})(?![\w-])|[a-z][a-z0-9-]*(?:[= ]{_VALUE})?)"
_OPTIONS = re.compile(rf"(?<![\w-]){_OPTION}")
_COMMAND = re.compile(
    rf"\bvlmill (?P<name>{'|'.join(sorted({name.partition(' ')[0] for name in CALLS}))})(?![\w-])"
    rf"(?: (?P<place>{_VALUE}))?(?: (?P<sample>ID|SAMPLE|SOURCE/FILE#ROW)\b)?(?P<options>(?: {_OPTION})*)"
)

_speaking_options = False


@contextmanager
def keep_options() -> Iterator[None]:
    """Leave messages as they are while a command of the command line runs."""
    global _speaking_options  # noqa: PLW0603 - of the process: a command and what it serves
    before, _speaking_options = _speaking_options, True
    try:
        yield
    finally:
        _speaking_options = before


def reword(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts for whoever called: in the words of Python unless the command line did."""
    return tuple(texts) if _speaking_options else tuple(map(name_arguments, texts))


def reword_error(error: VlmillError) -> None:
    """The same of an error, in place."""
    error.faults = reword(error.faults)
    error.args = ("\n".join(error.faults),)


def name_arguments(text: str) -> str:
    """A message with calls in the place of commands, and arguments in the place of options."""
    return _OPTIONS.sub(lambda found: _name_argument(found[0]), _COMMAND.sub(_name_call, text))


def _name_call(command: re.Match[str]) -> str:
    """The call that does what a command does."""
    name, options = command["name"], [found[0] for found in _OPTIONS.finditer(command["options"])]
    if any(_split_option(one)[0] not in KNOWN for one in options):
        return command[0]
    arguments = list(map(_name_argument, options))
    if name in ("build", "check"):
        place, loading = _show(command["place"] or "RECIPE"), []
        if name == "build":
            loading = [one for one in arguments if one.partition("=")[0] in LOADING]
            arguments = [one for one in arguments if one not in loading]
        if loading:
            place = f"vlmill.load_recipe({', '.join([place, *loading])})"
        return CALLS[name].format(", ".join([place, *arguments]))
    if name == "report" and any(one.startswith("reason") for one in arguments):
        name = "report --reason"
        arguments = [re.sub(r"^sources\[(.*)\]$", r"source=\1", one) for one in arguments]  # of one source there
    said = [*([_show(command["sample"])] if command["sample"] else []), *arguments]
    return CALLS[name].format(_show(command["place"] or "DIR"), ", ".join(said))


def _name_argument(option: str) -> str:
    """The argument that an option is; the option itself where it is none of ours."""
    name, value = _split_option(option)
    if name in FLAGS:
        return f"{name.replace('-', '_')}=True"
    if name in MACHINE:
        field = name.replace("-", "_")
        return f"machine=vlmill.Machine({field}={_show(value)})" if value else f"`{field}` of vlmill.Machine"
    argument = (VALUES | LISTS | PAIRS).get(name)
    if argument is None:
        return option
    if not value:
        return f"`{argument}`"
    if name in PAIRS:
        key, equals, item = value.strip("'\"").partition("=")
        return f"{argument}={{{_show(key)}: {_show(item)}}}" if equals else f"{argument}[{key!r}]"
    return f"{argument}=[{_show(value)}]" if name in LISTS else f"{argument}={_show(value)}"


def _split_option(option: str) -> tuple[str, str]:
    """Its name and its value, which may be empty."""
    name, value = re.fullmatch(r"--([a-z0-9-]+)[= ]?(.*)", option, re.DOTALL).groups()  # type: ignore[union-attr]
    return name, value


def _show(value: str) -> str:
    """A value as Python writes it; a word in capitals stands for one."""
    value = value.strip("'\"")
    if re.fullmatch(r"[A-Z][A-Z0-9_]*", value):
        return value
    try:
        read: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        read = value
    return repr(read if isinstance(read, bool | int | float) else value)
