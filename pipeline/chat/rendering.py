"""Chat templates of published models, rendered as transformers renders them: Jinja in a sandbox, without a clock.

A template is a text that comes with a model and is data here. It sees messages and the names of a few tokens, and can
only write. It is compiled and rendered in a child process, for it may loop without end or fill all memory. The lowest
part of chat formats: `published.py` reads a text off what is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sandbox import ChildCrashed, ChildTimedOut, borrow_sandbox

LONGEST = 1 << 20
"""Characters of a template. Published ones have up to some 20,000."""

SECONDS = 30.0
"""For one conversation. Published templates take less than a millisecond."""

MEMORY = 1 << 29
"""Bytes that a template may take."""

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
        RecipeError: it took longer than `SECONDS` or more than `MEMORY`. That is no verdict on the conversation:
            another machine may take less.
    """
    written, failure = _render_in_child(source, messages, dict(tokens), prompt)
    if failure is not None:
        raise TemplateFailed(failure)
    return str(written)


def _render_in_child(*arguments: Any) -> tuple[str | None, str | None]:
    """The answer of `_render_checked` from a child process; one that died is no proof, so it is asked once more."""
    for attempt in range(2):
        try:
            with borrow_sandbox(_render_checked, SECONDS, MEMORY) as child:
                ((written, failure),) = child.run(*arguments)
        except ChildTimedOut as error:
            raise _explain_limit(f"longer than {SECONDS:g} s") from error
        except ChildCrashed as error:
            if attempt:
                raise _explain_limit(f"more than it may ({error})") from error
        else:
            return written, failure
    raise AssertionError("unreachable")


def _explain_limit(took: str) -> RecipeError:
    return RecipeError(
        f"chat: the chat template took {took} over one conversation, where published ones take a millisecond and a few "
        "MB; look at the template of chat.path, or take the chat of another model"
    )


def _render_checked(
    source: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, str], prompt: bool
) -> Iterator[tuple[str | None, str | None]]:
    """What the child does: what the template writes, or with which error it ended."""
    try:
        written = _compile_template(source).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=prompt, **tokens
        )
    except TemplateFailed as error:
        yield None, str(error)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        yield None, f"{type(error).__name__}: {error}"
    else:
        yield written, None


def set_variables(source: str, variables: Mapping[str, str | bool | int]) -> str:
    """A template that has values for some of its variables, whoever renders it."""
    lines = (
        f"{{% set {name} = {json.dumps(value, ensure_ascii=False)} %}}\n" for name, value in sorted(variables.items())
    )
    return "".join(lines) + source


def accept_parts(source: str, image: str) -> str:
    """A template that takes contents as texts, made to take parts; an image becomes `image` in its place."""
    return FLATTEN.replace("IMAGE", json.dumps(image, ensure_ascii=False)) + source
