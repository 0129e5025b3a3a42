"""Step `written`: the texts that servers wrote become nodes of their samples, with their origin.

Comes after the signals that write, and before all filters, so that what was written is filtered, compared and rendered
like any other text. It leaves samples.parquet, which stands in the place of the table that was read. Nodes keep their
places: a text beside an image stands behind all others, and says behind which node it is read (`Node.after`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Literal

from vlmill.pipeline.core.answers import read_answers
from vlmill.pipeline.core.names import SAMPLES_FILE, name_answers
from vlmill.pipeline.core.sample import Node, Sample, read_samples, write_written_samples
from vlmill.pipeline.core.step import Count, Counts, Inputs
from vlmill.pipeline.signals.base import PairText, find_text_nodes

Place = Literal["beside", "instead"]
"""Where a text goes: behind what it was written about, or in the place of the text that belongs to it."""


@dataclass(frozen=True)
class TextWriter:
    """A signal whose answers become nodes."""

    signal: str  # as the recipe calls it
    model: str
    prompt_sha256: str
    place: Place
    text: PairText  # `instead` of which text, where images are asked about

    @property
    def origin(self) -> str:
        """What a node says of where it comes from: JSON with sorted keys."""
        about = {"signal": self.signal, "model": self.model, "prompt_sha256": self.prompt_sha256}
        return json.dumps(about, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class WriteTexts:
    """Writes samples.parquet with what was written. Counts `written`: nodes that were added or replaced."""

    writers: tuple[TextWriter, ...]

    name: ClassVar[str] = "written"
    version: ClassVar[int] = 1
    pure: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        """Samples, and the answers of the writers."""
        return (SAMPLES_FILE, *(name_answers(writer.signal) for writer in self.writers))

    def made_by(self) -> Mapping[str, str]:
        """What writes the table."""
        return {"pyarrow": version("pyarrow")}

    def run(self, inputs: Inputs, folder: Path) -> Counts:
        """Write the table."""
        count = Count()
        answers = [_read_texts(inputs[name_answers(writer.signal)]) for writer in self.writers]

        def write_samples() -> Iterator[Sample]:
            for row, sample in enumerate(read_samples(inputs[SAMPLES_FILE])):
                written = sample
                for writer, texts in zip(self.writers, answers, strict=True):
                    written = add_texts(written, writer, texts.get(row, {}))
                count.keep(sum(node.origin is not None for node in written.nodes))
                yield written

        write_written_samples(folder / SAMPLES_FILE, write_samples())
        return {"written": count}


def _read_texts(path: Path) -> dict[int, dict[int, str]]:
    """Row -> node -> the text that was written about it."""
    found = dict[int, dict[int, str]]()
    for placed in read_answers(path):
        if placed.answer.text is not None:
            found.setdefault(placed.sample, {})[placed.node] = placed.answer.text
    return found


def add_texts(sample: Sample, writer: TextWriter, texts: Mapping[int, str]) -> Sample:
    """A sample with the texts of one writer. Pure.

    An image without a text, or with several that belong to it, has its text beside it even where it should stand
    instead of one: nothing says which it would replace. Nor is a text replaced twice.

    Args:
        sample: As it was read, or with the texts of other writers.
        writer: Whose they are.
        texts: By the node that they are about.
    """
    nodes, replaced = list(sample.nodes), set[int]()
    for index, text in sorted(texts.items()):
        target = _find_target(nodes, index, writer)
        if writer.place == "instead" and target is not None and target not in replaced:
            nodes[target] = replace(nodes[target], text=text, origin=writer.origin)
            replaced.add(target)
        else:
            nodes.append(_make_node(nodes, index, text, writer.origin))
    return replace(sample, nodes=tuple(nodes))


def _find_target(nodes: Sequence[Node], index: int, writer: TextWriter) -> int | None:
    """The text that a written one replaces: the one it is about, or the only one that belongs to the image."""
    if nodes[index].image is None:
        return index
    belonging = [place for place in find_text_nodes(nodes, index, writer.text) if nodes[place].after is None]
    return belonging[0] if len(belonging) == 1 else None


def _make_node(nodes: Sequence[Node], index: int, text: str, origin: str) -> Node:
    """A text behind another node. It counts in the loss where texts of its role and turn do."""
    about = nodes[index]
    peers = [node for node in nodes if node.text is not None and (node.role, node.turn) == (about.role, about.turn)]
    supervised = any(node.supervised for node in peers) if peers else about.role == "none"
    return Node("text", about.role, about.turn, supervised, text, after=index, origin=origin)
