"""RenderedText: tars of pictures of written text with what is written (wendlerc/RenderedText).

Per key `.png` and `.json`. Upstream does not document the keys of the JSON, and they could not be looked up; so the
option `text` names the places where the text may stand, and the first that a row has counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.errors import BadFileError
from vlmill.pipeline.sources.base import Page, Picture, UnreadableRow
from vlmill.pipeline.sources.formats.tars import Needs, TarSource, index_rows, read_member
from vlmill.pipeline.sources.known_keys import PICTURES, list_unread
from vlmill.pipeline.sources.pairs import SAME, make_pair_page, parse_json_object


@dataclass(frozen=True, config=STRICT)
class RenderedText(TarSource):
    """Pictures to be read out."""

    kind: ClassVar[str] = "rendered_text"

    text: tuple[str, ...] = ("text", "lines.text", "lines")  # dotted keys; of a list every item counts, as a line

    def needs(self) -> Needs:
        """A picture and what is said of it."""
        return (PICTURES, ("json",))

    def survey(self, path: Path) -> list[int]:
        """Bytes of each row's members.

        Raises BadFileError as `tars.index_rows`, and where no row has a text at any of the places.
        """
        entries = index_rows(path, self.needs())
        with path.open("rb") as file:
            self._check(
                path, (read_member(file, entry.members["json"]) for entry in entries if "json" in entry.members)
            )
        return [entry.size for entry in entries]

    def page(self, key: str, members: Mapping[str, bytes]) -> Page:
        """The picture, then its lines; EMPTY_ROW where they are blank, BAD_ROW where there are none."""
        about = parse_json_object(key, members["json"])
        left = list_unread(about, {*SAME, *(place.split(".")[0] for place in self.text)}, pictured=True)
        if (lines := self._text(about)) is None:
            raise UnreadableRow(f"{key}.json has a text at none of {', '.join(self.text)}; it has {', '.join(about)}")
        suffix = next(suffix for suffix in PICTURES if suffix in members)
        page = make_pair_page(Picture(data=members[suffix]), "\n".join(lines), f"{key}.{suffix}")
        return replace(page, unread=tuple(f"json.{name}" for name in left))

    def _check(self, path: Path, members: Iterable[bytes]) -> None:
        """Raise BadFileError if there are objects, and none of them has a text; the first usually has."""
        first: dict[str, Any] | None = None
        for data in members:
            try:
                about = parse_json_object("", data)
            except UnreadableRow:
                continue  # it will be a bad row
            if self._text(about) is not None:
                return
            first = about if first is None else first
        if first is not None:
            raise BadFileError(
                f"{path}: no row has a text at {' or '.join(self.text)}; the first has {', '.join(first) or 'none'}. "
                "Say where it is with the option `text`, in dotted keys"
            )

    def _text(self, about: Mapping[str, Any]) -> list[str] | None:
        """The lines at the first place that has any; blank ones where no place has others."""
        found = [lines for place in self.text if (lines := _read_lines(about, place.split("."))) is not None]
        return next((lines for lines in found if any(line.strip() for line in lines)), found[0] if found else None)


def _read_lines(value: Any, keys: Sequence[str]) -> list[str] | None:
    """The strings at a dotted place, through lists; None where anything else is, or nothing."""
    if isinstance(value, list):
        found = [_read_lines(item, keys) for item in value]
        return None if None in found else [line for lines in found for line in lines or []]
    if not keys:
        return [value] if isinstance(value, str) else None
    return _read_lines(value.get(keys[0]), keys[1:]) if isinstance(value, dict) else None
