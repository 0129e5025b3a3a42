"""The chat of a published model, read from its folder or from the Hub.

Read are the template, special tokens and what ends an answer. The files and their order are those of transformers:
`chat_template.jinja` before the processor's `chat_template.json` and `processor_config.json`, and these before the
tokenizer's `tokenizer_config.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmill.pipeline.chat.encode import ChatFormat
from vlmill.pipeline.chat.outline import Form, TemplateRefused
from vlmill.pipeline.chat.published import PROBE, PublishedFormat
from vlmill.pipeline.chat.settings import PublishedChat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError

COMMIT = re.compile(r"[0-9a-f]{40}")
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
LARGEST = 1 << 28
"""Bytes of a file that is read; the largest tokenizers have some 35 million."""

Open = Callable[[str], Path | None]
"""From a file's name to its place, or None where the folder has no such file."""


def fill_chat(data: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A recipe's mapping whose published chat holds what its folder says; any other as it is.

    Args:
        data: the mapping of a recipe.
        base: the folder that its relative paths start from.

    Raises:
        RecipeError: the folder cannot be read, or holds no chat template.
    """
    chat = data.get("chat")
    if not isinstance(chat, Mapping) or not isinstance(chat.get("path"), str) or "template" in chat:
        return dict(data)
    filled = {**chat, **read_chat(chat["path"], chat.get("revision"), base)}
    read = parse_block(PublishedChat, filled, "chat")
    try:
        made = find_format(read)
    except RecipeError:  # which is said when the recipe is validated
        return {**data, "chat": filled}
    return {**data, "chat": {**filled, "marks": _list_written(made)}}


def read_chat(path: str, revision: str | None, base: Path) -> dict[str, Any]:
    """Template, tokens, marks and stops of a published model."""
    folder = base / path
    find = _find_beside(folder) if folder.is_dir() else _find_on_hub(path, revision)
    config = _read_json(find("tokenizer_config.json"))
    named = {**_read_json(find("special_tokens_map.json")), **config}
    tokens = {name: text for name in NAMED if (text := _get_text(named.get(name)))}
    if "eos_token" not in tokens:
        raise RecipeError(f"chat.path: {path} says no eos_token; is tokenizer_config.json there?")
    template = _find_template(find, config)
    if template is None:
        raise RecipeError(
            f"chat.path: {path} has no chat template; chat_template.jinja, chat_template.json, processor_config.json "
            "and tokenizer_config.json were looked at. A base model has none: take the instruct model's"
        )
    added = dict(_list_added(find, config))
    special = [*tokens.values(), *(text for text, (_, is_special) in added.items() if is_special)]
    ids = {**_list_vocabulary(find), **{number: text for text, (number, _) in added.items()}}
    return {
        "template": template,
        "tokens": tokens,
        "marks": list(dict.fromkeys(special)),
        "stops": list(_list_stops(find, ids, path)) or [tokens["eos_token"]],
    }


def _list_written(chat: ChatFormat) -> list[str]:
    """The special tokens of a published format that its template writes, in any form of conversation."""
    assert isinstance(chat, PublishedFormat)
    system: Form = (("system", ("text",)), *PROBE)
    shown: Form = (("user", ("image", "text")),)
    written = ""
    for form, prompt in ((PROBE, False), (system, False), (shown, True)):
        try:
            written += chat.renderer.render(form, prompt=prompt)
        except TemplateRefused:
            continue
    return [mark for mark in chat.marks if mark in written]


def _find_beside(folder: Path) -> Open:
    return lambda name: folder / name if (folder / name).is_file() else None


def _find_on_hub(path: str, revision: str | None) -> Open:
    if revision is None or not COMMIT.fullmatch(revision):
        raise RecipeError(
            f"chat.path: there is no folder {path!r}; of a model on the Hub the recipe names the commit as well "
            f"(chat.revision: 40 digits), not {revision!r}"
        )

    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - takes 0.4 s, and few recipes ask the Hub
    from huggingface_hub.errors import (  # noqa: PLC0415
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    def find(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(path, name, revision=revision))
        except LocalEntryNotFoundError as error:
            raise RecipeError(f"chat.path: {path} on the Hub cannot be reached: {error}") from error
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise RecipeError(f"chat.path: {path} on the Hub cannot be read: {error}") from error

    return find


def _find_template(find: Open, config: Mapping[str, Any]) -> str | None:
    if (path := find("chat_template.jinja")) is not None:
        return path.read_text(encoding="utf-8")
    found = (_read_json(find(name)).get("chat_template") for name in ("chat_template.json", "processor_config.json"))
    for template in (*found, config.get("chat_template")):
        if isinstance(template, list):  # named templates, of which one is the default
            template = next((item["template"] for item in template if item.get("name") == "default"), None)  # noqa: PLW2901
        if isinstance(template, str):
            return template
    return None


def _list_added(find: Open, config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, bool]]]:
    """Tokens outside a tokenizer's model: text, id, and whether they are special."""
    for number, token in config.get("added_tokens_decoder", {}).items():
        yield token["content"], (int(number), bool(token.get("special")))
    for token in _read_json(find("tokenizer.json")).get("added_tokens", ()):
        yield token["content"], (int(token["id"]), bool(token.get("special")))


def _list_vocabulary(find: Open) -> dict[int, str]:
    """The tokens of a tokenizer's model by id."""
    found = _read_json(find("tokenizer.json")).get("model", {}).get("vocab", {})
    if isinstance(found, list):  # of a unigram model: texts with their scores
        return {number: text for number, (text, _) in enumerate(found)}
    return {number: text for text, number in found.items()}


def _list_stops(find: Open, ids: Mapping[int, str], path: str) -> Iterator[str]:
    stops = _read_json(find("generation_config.json")).get("eos_token_id")
    for number in stops if isinstance(stops, list) else [] if stops is None else [stops]:
        if number not in ids:
            raise RecipeError(
                f"chat.path: {path}/generation_config.json ends answers with token {number!r}, which neither "
                "tokenizer.json nor tokenizer_config.json has"
            )
        yield ids[number]


def _get_text(token: Any) -> str | None:
    """A token, which may be written with its manners."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) and text else None


def _read_json(path: Path | None) -> Mapping[str, Any]:
    """A file's mapping; nothing where there is none. Raises RecipeError if it is no JSON, or too large."""
    if path is None:
        return {}
    if path.stat().st_size > LARGEST:
        raise RecipeError(f"chat.path: {path} has {path.stat().st_size} bytes; {LARGEST} are read at most")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecipeError(f"chat.path: {path} is no JSON: {error}") from error
    return found if isinstance(found, Mapping) else {}
