"""A recipe's mapping on its way to the effective one: the command line's changes, subsets, and origins of values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from vlmill.pipeline.chat.reading import fill_chat
from vlmill.pipeline.core.errors import raise_errors
from vlmill.pipeline.recipe.given import RecipePlace
from vlmill.pipeline.recipe.include import COMPOSING
from vlmill.pipeline.recipe.located import Origins, add_origins, note_changes
from vlmill.pipeline.recipe.mapping import refuse_code
from vlmill.pipeline.recipe.overrides import add_custom_filters, list_locations, move_source, set_value
from vlmill.pipeline.recipe.rebase import place_models
from vlmill.pipeline.recipe.subsets import expand_subsets


class MappingInChange:
    """A recipe's mapping while it is changed, and the origin of every value in it."""

    def __init__(self, data: dict[str, Any], origins: Origins) -> None:
        self.data, self.origins = data, origins

    def change(self, origin: str, how: Callable[[dict[str, Any]], object]) -> None:
        """Change the mapping in place; what is new in it comes from `origin`."""
        before = copy.deepcopy(self.data)
        how(self.data)
        note_changes(self.origins, before, self.data, origin)

    def list_changes(
        self,
        path: RecipePlace,
        sources: Mapping[str, str] | None,
        limit: int | None,
        sets: Mapping[str, str] | None,
        filters: Sequence[tuple[str, str]],
        locked: Mapping[str, Any] | None,
    ) -> Iterator[Callable[[], object]]:
        """What makes it the effective mapping, in order; each changes it in place or raises RecipeError, SourceError.

        Sources are moved and values are set before subsets become sources; what is meant for one of these, after that.
        """
        moves, sets = dict(sources or {}), {key: text for key, text in (sets or {}).items() if key not in COMPOSING}
        yield partial(self.change, "", lambda data: refuse_code(path, data, dict(filters)))
        if held := (locked or {}).get("custom_filters"):
            others = {file: code for file, code in held.items() if file not in dict(filters)}
            yield partial(self.change, "the lock", lambda data: data.update(custom_filters=others))
        for file, code in filters:
            yield partial(self.change, f"--filter {file}", partial(add_custom_filters, file=file, code=code))
        for name in [name for name in moves if name in list_locations(self.data)]:
            yield partial(self._move, name, moves.pop(name))
        later = {key: sets.pop(key) for key in list(sets) if self._is_of_subset(key)}
        yield from (partial(self._set, key, text) for key, text in sets.items())
        yield lambda: place_models(self.data, path.parent)  # each value keeps its origin
        yield partial(self.change, "chat.path", lambda data: data.update(fill_chat(data, path.parent)))
        yield partial(self._expand_subsets, path.parent, locked)
        yield from (partial(self._set, key, text) for key, text in later.items() if not self._is_of_subset(key))
        for name, place in moves.items():
            yield from (partial(self._move, one, place) for one in self._list_meant(name, sources or {}))
        if limit is not None:
            yield partial(self.change, "--limit", lambda data: data.update(limit=limit))

    def add_origins(self, faults: Iterable[str], name: str) -> tuple[str, ...]:
        """Faults with the places of the values that they name; `name` is that of the recipe's file."""
        return tuple(add_origins(fault, self.data, self.origins, name) for fault in faults)

    def _expand_subsets(self, base: Path, locked: Mapping[str, Any] | None) -> None:
        before = self.data
        self.data, errors = expand_subsets(before, base, locked)
        if self.data is not before:
            self._note_subsets(before["sources"])
        raise_errors(errors)

    def _move(self, name: str, place: str) -> None:
        self.change(f"--source {name}", lambda data: move_source(data, name, place))

    def _set(self, key: str, text: str) -> None:
        self.change(f"--set {key}", partial(set_value, key=key, text=text))

    def _list_meant(self, name: str, sources: Collection[str]) -> list[str]:
        """The sources and benchmarks that a pattern such as `cauldron-*` means, without those named themselves.

        Of a pattern without any, and of a plain name, itself.
        """
        if not any(sign in name for sign in "*?["):
            return [name]
        return [one for one in list_locations(self.data) if fnmatchcase(one, name) and one not in sources] or [name]

    def _is_of_subset(self, key: str) -> bool:
        """Whether a dotted key leads into a source that a subset has yet to become."""
        sources, parts = self.data.get("sources"), key.split(".")
        if parts[0] != "sources" or len(parts) < 2 or not isinstance(sources, dict) or parts[1] in sources:
            return False
        groups = [name for name, block in sources.items() if isinstance(block, dict) and block.get("subsets")]
        return any(parts[1].startswith(f"{name}-") for name in groups)

    def _note_subsets(self, before: Mapping[str, Any]) -> None:
        """The origins of sources that came of subsets: those of the source that they were, or its `subsets`."""
        for name, block in self.data["sources"].items():
            if name in before:
                continue
            group = block["group"]
            origin = self.origins["sources", group, "subsets"]
            for key in [found for found in self.origins if found[:2] == ("sources", group)]:
                if key[2:3] and key[2] in block and key[2] not in ("files", "subset", "split"):
                    self.origins["sources", name, *key[2:]] = self.origins[key]
            self.origins["sources", name] = origin
            for key in block.keys() & {"files", "subset", "split", "group"}:
                self.origins["sources", name, key] = origin
        for key in [found for found in self.origins if found[:1] == ("sources",) and found[1:2]]:
            if key[1] not in self.data["sources"]:
                del self.origins[key]
