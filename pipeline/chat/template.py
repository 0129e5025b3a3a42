"""Chat templates of transformers (Jinja) of the formats of ours: the same tokens for messages as for nodes.

What stands between the generation tags is what "answers" supervises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmill.pipeline.core.sample import Role


def write_template(
    roles: Sequence[tuple[Role, str]],
    ends: Mapping[Role, str],
    image: str,
    bos: str,
    eos: str,
    *,
    leading: bool,
) -> str:
    """The template, for messages of strings or of text and image parts; pure.

    Args:
        roles: each with the mark that its messages begin with.
        ends: what messages of each role end with.
        image: what a processor is given for an image.
        bos: what a conversation begins with.
        eos: what it ends with.
        leading: whether `bos` comes behind an image that the conversation begins with.
    """
    marks = ", ".join(f"'{role}': '{mark}'" for role, mark in roles)
    behind = f"{{% if loop.first and first %}}{bos}{{% endif %}}" if leading else ""
    content = (
        "{% if message.content is string %}{{ message.content }}{% else %}{% for part in "
        f"message.content %}}{{% if part.type == 'image' %}}{{{{ {image!r} }}}}{behind}{{% else "
        "%}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    )
    answer, other = (_write_end(ends, [role for role, _ in roles if (role == "assistant") == mine]) for mine in (1, 0))
    return (
        f"{{% set marks = {{{marks}}} %}}{_write_begin(bos, leading=leading)}{{% for message in messages %}}"
        f"{'{% set first = loop.first %}' if leading else ''}{{{{ marks[message.role] }}}}"
        f"{{% if message.role == 'assistant' %}}{{% generation %}}{content}{answer}{{% endgeneration %}}"
        f"{{% else %}}{content}{other}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ marks.assistant }}}}{{% else %}}{eos}{{% endif %}}"
    )


def _write_begin(bos: str, *, leading: bool) -> str:
    if not leading:
        return bos
    shown = "messages and messages[0].content is not string and messages[0].content[0].type == 'image'"
    return f"{{% if not ({shown}) %}}{bos}{{% endif %}}"


def _write_end(ends: Mapping[Role, str], roles: Sequence[Role]) -> str:
    """What ends messages of some roles: the same of all, or of each its own."""
    if len(found := {ends[role] for role in roles}) == 1:
        return found.pop()
    return "".join(f"{{% if message.role == '{role}' %}}{ends[role]}{{% endif %}}" for role in roles if ends[role])
