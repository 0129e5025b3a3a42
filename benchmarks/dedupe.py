"""What dedupe finds and what it costs, against brute force and against rensa, datasketch, datatrove and imagehash.

    python -m benchmarks.dedupe --corpus DIR [--texts N] [--images N] [--datatrove PYTHON] [--half 0|1] [--sheet FILE]

DIR holds `obelics/parquet/*.parquet` (OBELICS' columns) and `obelics/img_blobs/**` (image files). Texts: every pair of
documents is compared by the Jaccard index of shingles that are cut here once more, letter by letter. Images: files that
brute force shows to be different pictures (no two correlate above DISTINCT at 256 x 256 pixels; copies that keep their
frame correlate above 0.97) are altered in ways that copies are, and every pair found between different ones is an
error, unless the two correlate above DISTINCT once they are aligned: that is the same picture in another frame. They
are drawn from one half of the corpus, by a hash of their names: the thresholds were chosen on half 0. FILE becomes a
sheet of the errors.

PYTHON is an interpreter that has datatrove; the other peers come with `pip install --editable '.[benchmarks]'`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import datasketch
import numpy as np
import rensa

from benchmarks.dedupe_images import distinct, half, measure_images
from benchmarks.dedupe_steps import DEFAULTS, found_pairs, read_texts, run_steps, score, timed
from vlmill.pipeline.core.compared_text import UNSPACED, fold_text
from vlmill.pipeline.core.sample import Node, Sample, SampleId, read_verdicts
from vlmill.pipeline.dedupe.candidates import TEXT, find_candidates
from vlmill.pipeline.dedupe.text import (
    ALONE,
    SHINGLE,
    WORD,
    compute_jaccard,
    hash_bands,
    hash_shingles,
    make_text_key,
)


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.dedupe")
    arguments.add_argument("--corpus", type=Path, required=True)
    arguments.add_argument("--texts", type=int, default=sys.maxsize)
    arguments.add_argument("--images", type=int, default=2000)
    arguments.add_argument("--datatrove", type=Path)
    arguments.add_argument("--half", type=int, choices=(0, 1), default=1)
    arguments.add_argument("--sheet", type=Path)
    given = arguments.parse_args()
    if given.texts:
        measure_texts(read_texts(given.corpus)[: given.texts], given.datatrove)
    if given.images:
        paths = sorted((given.corpus / "obelics/img_blobs").glob("*/*"))
        measure_images(distinct([path for path in paths if half(path) == given.half], given.images), given.sheet)


def measure_texts(texts: Sequence[str], datatrove: Path | None) -> None:
    """Speed beside the peers, and what is found beside all pairs."""
    runs = [(timed(lambda: by_rensa(texts)), timed(lambda: by_us(texts))) for _ in range(3)]
    theirs, ours = (min(run[side] for run in runs) for side in (0, 1))
    signed = list[set[tuple[int, ...]]]()
    slower = {
        "datasketch: Python sets of shingles, 14 x 8, candidates": timed(lambda: signed.append(by_datasketch(texts)))
    }
    if datatrove:
        seconds, troved = by_datatrove(texts, datatrove)
        slower["datatrove: words given, 14 x 8, its four stages"] = seconds
    print(f"{len(texts)} texts, {sum(map(len, texts)):,} characters; rensa and here the best of three runs in turn")
    for what, seconds in {
        "rensa: Python sets of shingles, 14 x 8, candidates": theirs,
        **slower,
        "here: shingles, 20 x 6, candidates, their similarity": ours,
    }.items():
        print(
            f"  {what:56} {seconds:7.2f} s {len(texts) / seconds:7.0f} texts/s {seconds / theirs:6.2f} of rensa's time"
        )
    samples = [Sample(SampleId("web", "x", row), (Node("text", text=text),)) for row, text in enumerate(texts)]
    folder, seconds = run_steps(samples, [])
    print("  the steps with their files: " + ", ".join(f"{step} {value:.2f} s" for step, value in seconds.items()))
    pairs = found_pairs(folder, "text", DEFAULTS.text)
    rows_of = defaultdict[int, list[int]](list)
    for row, text in enumerate(texts):
        rows_of[make_text_key(text)].append(row)
    found = {pair for rows in rows_of.values() for pair in combinations(rows, 2)}
    found |= {(min(a, b), max(a, b)) for one, other in pairs for a in rows_of[one] for b in rows_of[other]}
    true = set(all_pairs([slow_shingles(text) for text in texts], DEFAULTS.text))
    score(f"pairs at {DEFAULTS.text}", true, found)  # type: ignore[arg-type]
    removed = {(verdict.sample,) for verdict in read_verdicts(folder / "web.0.dedupe.verdicts.parquet")}
    expected: set[tuple[int, ...]] = {(row,) for row in later_of_each_cluster(true)}
    score("removed documents", expected, removed)  # type: ignore[arg-type]
    score("removed by datasketch", expected, {(row,) for row in later_of_each_cluster(signed[0])})  # type: ignore[arg-type]
    if datatrove:
        score("removed by datatrove", expected, {(row,) for row in troved})


def by_rensa(texts: Sequence[str]) -> None:
    """Signatures of all texts at once, and which of them share a band with another: rensa's fastest way."""
    hashes = rensa.RMinHash.digest_matrix_from_token_sets([list(quick_shingles(text)) for text in texts], 112, 42)
    rensa.RMinHashLSH(DEFAULTS.text, 112, 14).query_duplicate_flags_matrix_one_shot(hashes)


def by_datasketch(texts: Sequence[str]) -> set[tuple[int, int]]:
    """Pairs of texts that share a band."""
    shingled = ([shingle.encode() for shingle in quick_shingles(text)] for text in texts)
    index, pairs = datasketch.MinHashLSH(num_perm=112, params=(14, 8)), set[tuple[int, int]]()
    for row, signature in enumerate(datasketch.MinHash.generator(shingled, num_perm=112)):
        pairs |= {(other, row) for other in index.query(signature)}
        index.insert(row, signature)
    return pairs


def by_datatrove(texts: Sequence[str], python: Path) -> tuple[float, list[int]]:
    """Seconds, and the rows that it removes; cutting texts into words is not in the time."""
    with tempfile.TemporaryDirectory() as folder:
        words, out = Path(folder) / "texts", Path(folder) / "out"
        words.write_text("\n".join(json.dumps(" ".join(tokens(text))) for text in texts), encoding="utf-8")
        script = Path(__file__).parent / "datatrove_minhash.py"
        subprocess.run([python, script, words, out], check=True)
        found = json.loads(out.read_text(encoding="utf-8"))
    return found["seconds"], found["removed"]


def by_us(texts: Sequence[str]) -> None:
    """What signature and pairs do, without files."""
    sets = [hash_shingles(text) for text in texts]
    places = np.concatenate([hash_bands(one) for one in sets])
    owners = np.repeat(np.arange(len(sets), dtype=np.uint64), len(places) // len(sets))
    order = np.lexsort((owners, places))
    first, second, _ = find_candidates(TEXT, places[order], owners[order], DEFAULTS.cap)
    for one, other in zip(owners[order][first], owners[order][second], strict=True):
        compute_jaccard(sets[one], sets[other])


UNSPACED_CLASS = "".join(f"{chr(start)}-{chr(stop)}" for start, stop in UNSPACED)
TOKEN = re.compile(rf"[{UNSPACED_CLASS}]|[^\W_{UNSPACED_CLASS}]+")


def tokens(text: str) -> list[str]:
    """Words, and lone characters of unspaced scripts."""
    return TOKEN.findall(fold_text(text))


def quick_shingles(text: str) -> set[str]:
    """Shingles in the way that takes the least time in Python."""
    words = tokens(text)
    return {" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}


def slow_shingles(text: str) -> set[tuple[str, ...]]:
    """Shingles letter by letter, as the definition has them."""
    tokens, last = list[str](), None
    for letter in fold_text(text):
        alone = any(start <= ord(letter) <= stop for start, stop in UNSPACED) if letter > "\u0dff" else False
        kind = (ALONE if alone else WORD) if unicodedata.category(letter)[0] in "LMN" else None
        if kind == WORD == last:
            tokens[-1] += letter
        elif kind:
            tokens.append(letter)
        last = kind
    return {tuple(tokens[start : start + SHINGLE]) for start in range(max(1, len(tokens) - SHINGLE + 1))}


def all_pairs(sets: Sequence[set[tuple[str, ...]]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of sets with a Jaccard index of at least `threshold`, found by counting what each pair shares."""
    holders = defaultdict[tuple[str, ...], list[int]](list)
    for row, one in enumerate(sets):
        shared = Counter[int]()
        for shingle in one:
            shared.update(holders[shingle])
            holders[shingle].append(row)
        for other, common in shared.items():
            if common >= threshold * (len(one) + len(sets[other]) - common):
                yield other, row


def later_of_each_cluster(pairs: set[tuple[int, int]]) -> Iterator[int]:
    """All but the first of each connected component."""
    neighbours = defaultdict[int, set[int]](set)
    for one, other in pairs:
        neighbours[one].add(other)
        neighbours[other].add(one)
    seen = set[int]()
    for first in sorted(neighbours):
        waiting = [] if first in seen else [first]
        while waiting:
            row = waiting.pop()
            if row not in seen:
                seen.add(row)
                waiting += neighbours[row]
                if row != first:
                    yield row


if __name__ == "__main__":
    main()
