"""For `check`: what the samples of the rows that were measured say about a source's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vlmill.pipeline.core.names import SAMPLES_FILE
from vlmill.pipeline.core.sample import Sample, read_samples
from vlmill.pipeline.proposal.seen_boxes import recognise_in_tables, warn_of_boxes
from vlmill.pipeline.proposal.text_marks import warn_of_texts
from vlmill.pipeline.sources import Source


def warn_of_samples(
    files: Mapping[str, Path], name: str, source: Source, *, unescape: bool, boxes: bool
) -> tuple[str, ...]:
    """A line for each thing that is hardly meant.

    Args:
        files: The tables of the samples and of their image stats.
        name: Of the source, in the recipe.
        source: How its files are read.
        unescape: Whether HTML entities are resolved.
        boxes: Whether the recipe says how coordinates in texts are written.
    """
    found = [*warn_of_texts(files[SAMPLES_FILE], name, unescape=unescape)]
    found += () if boxes else warn_of_boxes(recognise_in_tables(files), name)
    return (*found, *_warn_of_absent_signals(list(read_samples(files[SAMPLES_FILE])), name, source))


def _warn_of_absent_signals(samples: Sequence[Sample], name: str, source: Source) -> Iterator[str]:
    """A line for each place that the option `signals` names and where no sample has a number; a row may lack it."""
    for place in getattr(source, "signals", ()) if samples else ():
        signal = place.rpartition(".")[2]
        if not any(signal in sample.signals for sample in samples):
            rows = f"none of the {len(samples)} samples that were looked at"
            yield f"source {name}: options.signals names {place!r}, and {rows} has a number there"
