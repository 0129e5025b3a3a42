"""Which texts that stand in longer ones dedupe finds, and what looking for them costs.

    python -m benchmarks.contained --corpus DIR [--texts N] [--half 0|1]

DIR holds `obelics/parquet/*.parquet` (OBELICS' columns). Texts of at least WORDS words are taken, of one half of the
documents by a hash of their text. Each becomes the longer text of one case: a part of it, or all of it between others,
stands beside it. Every pair of all texts, cases and neighbours as they are, is compared by brute force as well: what
is found has to be among those pairs, and what brute force finds counts as recall.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.dedupe_steps import DEFAULTS, read_texts, run_steps, score
from vlmill.pipeline.core.sample import Node, Sample, SampleId, read_rows
from vlmill.pipeline.dedupe.text import hash_shingles, make_text_key

WORDS = 100
THRESHOLD = 0.8

Case = Callable[[list[str], list[str]], str]
"""Words of a text and of another one -> what stands beside the text."""

CASES: dict[str, Case] = {
    "the first half of a page": lambda own, _: " ".join(own[: len(own) // 2]),
    "the second half between others, together an eighth": lambda own, other: " ".join(
        [*other[: len(own) // 32], *own[len(own) // 2 :], *other[-(len(own) // 32) :]]
    ),
    "a tenth of a page": lambda own, _: " ".join(own[len(own) // 3 :][: max(40, len(own) // 10)]),
    "the page with header and footer of a fifth each": lambda own, other: " ".join(
        [*other[: len(own) // 5], *own, *other[-(len(own) // 5) :]]
    ),
    "the page in a text three times as long": lambda own, other: " ".join(
        [*(other * 99)[: len(own)], *own, *(other * 99)[: len(own)]]
    ),
    "half of it, every 40th word another": lambda own, other: " ".join(
        other[place % len(other)] if place % 40 == 39 else word for place, word in enumerate(own[: len(own) // 2])
    ),
}


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.contained")
    arguments.add_argument("--corpus", type=Path, required=True)
    arguments.add_argument("--texts", type=int, default=sys.maxsize)
    arguments.add_argument("--half", type=int, choices=(0, 1), default=1)
    given = arguments.parse_args()
    texts = [text for text in dict.fromkeys(read_texts(given.corpus)) if len(text.split()) >= WORDS]
    texts = [text for text in texts if hashlib.sha256(text.encode()).digest()[0] % 2 == given.half][: given.texts]
    settings = replace(DEFAULTS, containment=THRESHOLD)
    for name, made in CASES.items():
        others = [*texts[1:], texts[0]]
        cases = [made(own.split(), other.split()) for own, other in zip(texts, others, strict=True)]
        measure_case(name, texts, cases, settings)
    measure_all(texts, settings)


def measure_case(name: str, texts: Sequence[str], cases: Sequence[str], settings: object) -> None:
    """Print how many of the pairs of a text and its case are found."""
    found, _, _ = find_pairs([*texts, *cases], settings)
    keys = [(make_text_key(text), make_text_key(case)) for text, case in zip(texts, cases, strict=True)]
    wanted = [(min(pair), max(pair)) for pair in keys]
    near, _, _ = find_pairs([*texts, *cases], DEFAULTS)
    shares = [sum(pair in pairs for pair in wanted) / len(wanted) for pairs in (near, found)]
    print(f"{name}: {len(wanted)} pairs, recall {shares[0]:.3f} by similarity, {shares[1]:.3f} with containment")


def measure_all(texts: Sequence[str], settings: object) -> None:
    """Print what is found of all pairs of the texts as they are, and the seconds of the steps."""
    found, seconds, folder = find_pairs(texts, settings)
    keys = [make_text_key(text) for text in texts]
    rows = all_pairs([hash_shingles(text).tolist() for text in texts], THRESHOLD)
    true = {(min(keys[a], keys[b]), max(keys[a], keys[b])) for a, b in rows if keys[a] != keys[b]}
    score(f"{len(texts)} texts as they are, pairs of containment {THRESHOLD}", true, found)  # type: ignore[arg-type]
    _, without, _ = find_pairs(texts, DEFAULTS)
    for step, value in seconds.items():
        print(f"  {step}: {without[step]:.2f} s without containment, {value:.2f} s with it")
    sizes = [sum(1 for path in folder.glob(f"*/{kind}.candidates.parquet") for _ in read_rows(path)) for kind in KINDS]
    print("  candidates: " + ", ".join(f"{size} {kind}" for kind, size in zip(KINDS, sizes, strict=True)))


KINDS = ("text", "contained")


def find_pairs(texts: Sequence[str], settings: object) -> tuple[set[tuple[int, int]], dict[str, float], Path]:
    """Keys of the pairs at the threshold (of similarity where there is no containment), seconds, and the folder."""
    samples = [Sample(SampleId("web", "x", row), (Node("text", text=text),)) for row, text in enumerate(texts)]
    folder, seconds = run_steps(samples, [], settings)  # type: ignore[arg-type]
    kind = "contained" if settings.containment else "text"  # type: ignore[attr-defined]
    rows = (row for path in folder.glob(f"*/{kind}.pairs.parquet") for row in read_rows(path))
    return {(row["one"], row["other"]) for row in rows if row["similarity"] >= THRESHOLD}, seconds, folder


def all_pairs(sets: Sequence[Sequence[int]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of sets of which one holds that share of the other, found by counting what each pair shares."""
    holders = defaultdict[int, list[int]](list)
    for row, one in enumerate(sets):
        shared = Counter[int]()
        for shingle in one:
            shared.update(holders[shingle])
            holders[shingle].append(row)
        for other, common in shared.items():
            if (
                min(len(one), len(sets[other])) >= 10
                and round(common / min(len(one), len(sets[other])), 4) >= threshold
            ):
                yield other, row


if __name__ == "__main__":
    main()
