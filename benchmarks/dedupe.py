"""What dedupe finds and what it costs, against brute force and against rensa.

    python -m benchmarks.dedupe --corpus DIR [--texts N] [--images N]

DIR holds `obelics/parquet/*.parquet` (OBELICS' columns) and `obelics/img_blobs/**` (image files). Texts: every pair of documents
is compared by the Jaccard index of shingles that are cut here once more, letter by letter. Images: files of which no two look alike
are altered in ways that copies are, and every pair found between different ones is an error.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import rensa
from PIL import Image, ImageDraw, ImageEnhance

from pipeline.dedupe import Dedupe
from pipeline.dedupe.candidates import TEXT, candidates
from pipeline.dedupe.sketch import image_key
from pipeline.dedupe.text import ALONE, SHINGLE, UNSPACED, WORD, bands, jaccard, shingles, text_key
from pipeline.images.decode import Undecodable, decode
from pipeline.inspect import examine
from pipeline.sample import ImageFacts, Node, Sample, SampleId, read_rows, read_verdicts, write_facts, write_samples

ALIKE = 0.8
"""Correlation of 64 x 64 luminance above which two files count as the same picture and only one is taken."""
FLAT = 5.0
"""Standard deviation of luminance under which a file is no picture."""
DEFAULTS = Dedupe()


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.dedupe")
    arguments.add_argument("--corpus", type=Path, required=True)
    arguments.add_argument("--texts", type=int, default=sys.maxsize)
    arguments.add_argument("--images", type=int, default=2000)
    given = arguments.parse_args()
    if given.texts:
        measure_texts(read_texts(given.corpus)[: given.texts])
    if given.images:
        measure_images(distinct(sorted((given.corpus / "obelics/img_blobs").glob("*/*")), given.images))


def run_steps(samples: Sequence[Sample], facts: Sequence[ImageFacts]) -> tuple[Path, dict[str, float]]:
    """A folder with what sketch, pairs and resolve leave of one partition, and the seconds that each took."""
    folder, seconds = Path(tempfile.mkdtemp()), dict[str, float]()
    write_samples(folder / "samples.parquet", samples)
    write_facts(folder / "facts.parquet", facts)
    start = time.perf_counter()
    DEFAULTS.sketch().run({name: folder / name for name in ("samples.parquet", "facts.parquet")}, folder)
    seconds["sketch"] = time.perf_counter() - start
    inputs = {f"web/0/{path.name}": path for path in folder.iterdir()}
    for name, steps in (("candidates", DEFAULTS.candidates()), ("pairs", DEFAULTS.pairs())):
        start, made = time.perf_counter(), dict[str, Path]()
        for number, step in enumerate(steps):
            target = folder / f"{name}-{number:05d}"
            target.mkdir()
            step.run(inputs, target)  # type: ignore[attr-defined]
            made |= {f"{number:05d}/{path.name}": path for path in target.iterdir()}
        inputs |= made
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    DEFAULTS.resolve(parts=("web/0",), priority={}, judges=()).run(inputs, folder)
    seconds["resolve"] = time.perf_counter() - start
    return folder, seconds


def found_pairs(folder: Path, kind: str, threshold: float) -> set[tuple[int, int]]:
    """Pairs of keys at or above the threshold."""
    rows = (row for path in folder.glob(f"*/{kind}.pairs.parquet") for row in read_rows(path))
    return {(row["one"], row["other"]) for row in rows if row["similarity"] >= threshold}


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def score(what: str, true: set[tuple[int, ...]], found: set[tuple[int, ...]]) -> None:
    """Print recall and precision."""
    common = len(true & found)
    print(f"  {what}: {len(true)}, recall {common / len(true):.4f}, precision {common / len(found):.4f}")


# -- texts ---------------------------------------------------------------------------------------------------------


def read_texts(corpus: Path) -> list[str]:
    """The text of every document, files and rows in order."""
    paths = sorted((corpus / "obelics/parquet").glob("*.parquet"))
    rows = (row for path in paths for row in read_rows(path, ["texts"]))
    return ["\n".join(text for text in row["texts"] if text) for row in rows]


def measure_texts(texts: Sequence[str]) -> None:
    """Speed beside rensa, and what is found beside all pairs."""
    runs = [(timed(lambda: by_rensa(texts)), timed(lambda: by_us(texts))) for _ in range(3)]
    theirs, ours = (min(run[side] for run in runs) for side in (0, 1))
    print(f"{len(texts)} texts, {sum(map(len, texts)):,} characters; the best of three runs in turn")
    print(f"  rensa: Python sets of shingles, 112 hashes, 14 bands, candidates    {theirs:.2f} s")
    print(
        f"  here: shingles, 120 hashes, 20 bands, candidates, their similarity  {ours:.2f} s, {ours / theirs:.2f} of it"
    )
    samples = [Sample(SampleId("web", "x", row), (Node("text", text=text),)) for row, text in enumerate(texts)]
    folder, seconds = run_steps(samples, [])
    print("  the steps with their files: " + ", ".join(f"{step} {value:.2f} s" for step, value in seconds.items()))
    pairs = found_pairs(folder, "text", DEFAULTS.text)
    rows_of = defaultdict[int, list[int]](list)
    for row, text in enumerate(texts):
        rows_of[text_key(text)].append(row)
    found = {pair for rows in rows_of.values() for pair in combinations(rows, 2)}
    found |= {(min(a, b), max(a, b)) for one, other in pairs for a in rows_of[one] for b in rows_of[other]}
    true = set(all_pairs([slow_shingles(text) for text in texts], DEFAULTS.text))
    score(f"pairs at {DEFAULTS.text}", true, found)  # type: ignore[arg-type]
    removed = {(verdict.sample,) for verdict in read_verdicts(folder / "web.0.dedupe.verdicts.parquet")}
    score("removed documents", {(row,) for row in later_of_each_cluster(true)}, removed)  # type: ignore[arg-type]


def by_rensa(texts: Sequence[str]) -> None:
    """Signatures of all texts at once, and which of them share a band with another: rensa's fastest way."""
    hashes = rensa.RMinHash.digest_matrix_from_token_sets([list(quick_shingles(text)) for text in texts], 112, 42)
    rensa.RMinHashLSH(DEFAULTS.text, 112, 14).query_duplicate_flags_matrix_one_shot(hashes)


def by_us(texts: Sequence[str]) -> None:
    """What sketch and pairs do, without files."""
    sets = [shingles(text) for text in texts]
    places = np.concatenate([bands(one) for one in sets])
    owners = np.repeat(np.arange(len(sets), dtype=np.uint64), len(places) // len(sets))
    order = np.lexsort((owners, places))
    first, second, _ = candidates(TEXT, places[order], owners[order], DEFAULTS.cap)
    for one, other in zip(owners[order][first], owners[order][second], strict=True):
        jaccard(sets[one], sets[other])


UNSPACED_CLASS = "".join(f"{chr(start)}-{chr(stop)}" for start, stop in UNSPACED)
TOKEN = re.compile(rf"[{UNSPACED_CLASS}]|[^\W_{UNSPACED_CLASS}]+")


def quick_shingles(text: str) -> set[str]:
    """Shingles in the way that takes the least time in Python."""
    words = TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return {" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}


def slow_shingles(text: str) -> set[tuple[str, ...]]:
    """Shingles letter by letter, as the definition has them."""
    tokens, last = list[str](), None
    for letter in unicodedata.normalize("NFKC", text).casefold():
        alone = any(start <= ord(letter) <= stop for start, stop in UNSPACED) if letter > "\u0dff" else False
        kind = (ALONE if alone else WORD) if unicodedata.category(letter)[0] in "LMN" else None
        if kind == WORD == last:
            tokens[-1] += letter
        elif kind:
            tokens.append(letter)
        last = kind
    return {tuple(tokens[start : start + SHINGLE]) for start in range(max(1, len(tokens) - SHINGLE + 1))}


def all_pairs(sets: Sequence[set[tuple[str, ...]]], threshold: float) -> Iterator[tuple[int, int]]:
    """Every pair of sets with a Jaccard index of at least `threshold`, found by counting what each shares with all before it."""
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


# -- images --------------------------------------------------------------------------------------------------------


def distinct(paths: Sequence[Path], number: int) -> list[bytes]:
    """Up to `number` files in a random order, of which no two look alike, by comparing each with all that were taken."""
    taken, views = list[bytes](), list[np.ndarray]()
    for index in np.random.default_rng(17).permutation(len(paths)):
        data = paths[index].read_bytes()
        try:
            view = np.asarray(decode(data).convert("L").resize((64, 64), Image.Resampling.BOX), np.float64)
        except Undecodable:
            continue
        view = view.ravel() - view.mean()
        if view.std() < FLAT or (views and np.max(np.stack(views) @ view / np.linalg.norm(view)) > ALIKE):
            continue
        taken.append(data)
        views.append(view / np.linalg.norm(view))
        if len(taken) == number:
            break
    return taken


def alterations(picture: Image.Image) -> Iterator[tuple[str, bytes]]:
    """What happens to pictures on their way from one site to another."""
    width, height = picture.size
    yield "JPEG, quality 50", encoded(picture, "JPEG", quality=50)
    yield "half size", encoded(picture.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.LANCZOS))
    left, top = round(width * 0.05), round(height * 0.05)
    yield (
        "5 % off each side",
        encoded(picture.crop((left, top, max(left + 1, width - left), max(top + 1, height - top)))),
    )
    yield "5 % off two sides", encoded(picture.crop((left, top, width, height)))
    bar = max(1, round(height * 0.08))
    captioned = Image.new("RGB", (width, height + bar), "black")
    captioned.paste(picture)
    ImageDraw.Draw(captioned).text((3, height), "a caption of some words", "white")
    yield "caption bar below", encoded(captioned)
    covered = picture.copy()
    ImageDraw.Draw(covered).rectangle((0, height - bar, width, height), "white")
    ImageDraw.Draw(covered).text((3, height - bar), "a caption of some words", "black")
    yield "caption bar over it", encoded(covered)
    yield "brightness + 10 %", encoded(ImageEnhance.Brightness(picture).enhance(1.1))
    yield "PNG", encoded(picture)


def encoded(picture: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def measure_images(originals: Sequence[bytes]) -> None:
    """How many alterations are found again, and how many of all pairs found are of one picture."""
    facts, origin = list[ImageFacts](), dict[int, int]()
    altered = defaultdict[str, list[tuple[int, int]]](list)
    for number, data in enumerate(originals):
        kept = examine(len(facts), data)
        facts.append(kept)
        origin[image_key(kept)] = number
        for name, copy in alterations(decode(data)):
            facts.append(examine(len(facts), copy))
            origin.setdefault(image_key(facts[-1]), number)
            ends = sorted((image_key(kept), image_key(facts[-1])))
            altered[name].append((ends[0], ends[1]))
    samples = [
        Sample(SampleId("web", "x", row), (Node("image", image=row), Node("text", text=str(row))))
        for row in range(len(facts))
    ]
    folder, seconds = run_steps(samples, facts)
    found = found_pairs(folder, "image", DEFAULTS.image)
    report_images(len(originals), altered, found, origin)
    print("  the steps with their files: " + ", ".join(f"{step} {value:.2f} s" for step, value in seconds.items()))


def report_images(
    originals: int, altered: Mapping[str, list[tuple[int, int]]], found: set[tuple[int, int]], origin: Mapping[int, int]
) -> None:
    """Print recall by alteration, and precision over all pairs of files and over pairs of pictures."""
    print(f"{originals} images, {len(origin)} files; pairs at {DEFAULTS.image}")
    for name, pairs in altered.items():
        print(
            f"  {name:20} recall {sum(one == other or (one, other) in found for one, other in pairs) / len(pairs):.4f}"
        )
    wrong = [(origin[one], origin[other]) for one, other in found if origin[one] != origin[other]]
    between = len({tuple(sorted(pair)) for pair in wrong})
    print(
        f"  precision {1 - len(wrong) / len(found):.4f} of {len(found)} pairs; {between} pairs of pictures taken for one"
    )


if __name__ == "__main__":
    main()
