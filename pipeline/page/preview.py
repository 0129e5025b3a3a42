"""The page of `vlmill preview`: samples of each source with their pictures, verdicts and tokens; one file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlmill.pipeline.checks.preview import PreviewedSample, SourcePreview
from vlmill.pipeline.checks.preview_text import describe_tokens
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.page import make_data_url, render_page
from vlmill.pipeline.reports.trace import describe_verdict

NAME = "preview.html"
LONGEST = 360
"""Pixels of a picture on the page."""


def write_preview(folder: Path, name: str, previews: Sequence[SourcePreview]) -> Path:
    """Write the page of a recipe's sources into a folder; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [{"preview": one, "samples": [_describe_sample(sample) for sample in one.samples]} for one in previews]
    path = folder / NAME
    write_atomically(path, render_page(__package__ or "", "preview.html.jinja", name=name, sources=sources))
    return path


def _describe_sample(one: PreviewedSample) -> dict[str, Any]:
    """A sample as the template shows it."""
    traced = one.traced
    said = [line for verdict in traced.verdicts if (line := describe_verdict(verdict, traced.outcome))]
    return {
        "id": str(traced.sample.id),
        "lost": traced.outcome.sample,
        "verdicts": said,
        "tokens": describe_tokens(one),
        "nodes": [
            {
                "role": node.role if node.role != "none" and not _goes_on(traced.sample.nodes, place) else "",
                "text": node.text,
                "supervised": node.supervised,
                "written": one.texts.get(place, ""),
                "lost": traced.outcome.nodes[place],
                "url": node.url or "",
                "picture": _make_url(one.pictures[place]) if place in one.pictures else "",
            }
            for place, node in enumerate(traced.sample.nodes)
        ],
    }


def _goes_on(nodes: Sequence[Node], place: int) -> bool:
    """Whether a node is of the message of the one before it, which names the role."""
    before = nodes[place - 1] if place else None
    return before is not None and (before.role, before.turn) == (nodes[place].role, nodes[place].turn)


def _make_url(data: bytes) -> str:
    return make_data_url(Image.open(io.BytesIO(data)), LONGEST)
