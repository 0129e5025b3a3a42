"""Chat templates of published models, rendered as transformers renders them: Jinja in a sandbox, without a clock.

A template is a text that comes with a model and is data here. It sees messages and the names of a few tokens, and can
only write. The lowest part of chat formats: `published.py` reads a text off what is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

LONGEST = 1 << 20
"""Characters of a template. Published ones have up to some 20,000."""

FLATTEN = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message.content is string -%}
{%- set flat.messages = flat.messages + [message] -%}
{%- else -%}
{%- set flat.text = '' -%}
{%- for part in message.content -%}
{%- set flat.text = flat.text + (IMAGE if part.type == 'image' else part.text) -%}
{%- endfor -%}
{%- set flat.messages = flat.messages + [{'role': message.role, 'content': flat.text}] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = flat.messages %}
"""
"""Goes before a template that takes a message's content as one text, so that it takes parts as processors give them."""


class TemplateFailed(Exception):  # noqa: N818 - what a template does, not what went wrong here
    """A template ended with an error, its own (`raise_exception`) or another."""


class _Generation(Extension):
    """`{% generation %}` as a block that changes nothing: answers are found without it."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _CheckedNamespace(Namespace):
    """A namespace without names that begin with an underscore, as transformers has it."""

    def __init__(*args: Any, **named: Any) -> None:
        for name in named:
            _check_attribute(name)
        Namespace.__init__(*args, **named)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"a namespace has no attribute {name!r}")


def _raise_exception(message: object) -> None:
    raise TemplateFailed(f"it says: {message}")


def _refuse_clock(*_: object) -> None:
    raise TemplateFailed(
        "it writes the date of the day; give the variable that holds the date a value (chat.variables)"
    )


def _to_json(value: object, ensure_ascii: bool = False, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **how)


@lru_cache(16)
def _compile_template(source: str) -> Any:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    made: dict[str, Callable[..., Any]] = {
        "raise_exception": _raise_exception,
        "strftime_now": _refuse_clock,
        "dict": dict,
        "namespace": _CheckedNamespace,
    }
    environment.globals.update(made)
    return environment.from_string(source)


def render_template(
    source: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], *, prompt: bool = False
) -> str:
    """What a template makes of messages; pure.

    Args:
        source: the template.
        messages: with `role` and `content`, which is a list of parts of type `text` and `image`.
        tokens: `bos_token` and others, as far as the tokenizer has them.
        prompt: whether what an answer begins with is to follow.

    Raises:
        TemplateFailed: it is no template, or it ended with an error.
    """
    try:
        written: str = _compile_template(source).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **tokens
        )
    except (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise TemplateFailed(f"{type(error).__name__}: {error}") from error
    return written


def set_variables(source: str, variables: Mapping[str, str | bool | int]) -> str:
    """A template that has values for some of its variables, whoever renders it."""
    lines = (
        f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}\n" for name, value in sorted(variables.items())
    )
    return "".join(lines) + source


def accept_parts(source: str, image: str) -> str:
    """A template that takes contents as texts, made to take parts; an image becomes `image` in its place."""
    return FLATTEN.replace("IMAGE", json.dumps(image, ensure_ascii=False)) + source
