"""How well the language filter recognises Chinese, what each kind of evidence adds, and what it costs.

    python -m benchmarks.language [--corpus DIR] [--tuning]

Scores the half of the hard set that tuning has not seen (`--tuning` shows the other half, with its mistakes). DIR may
hold `languages/lang.jsonl` (rows of lang and text: whole sentences) and OBELICS documents with labels
(`obelics/labels.jsonl`).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.hard_set import FAMILY, PER_CATEGORY, Item, corpus_items, hard_set, without_context
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample, SampleId
from vlmill.pipeline.filters import Finding, Language, Undecided
from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.filters.language.evidence import Weights
from vlmill.pipeline.filters.language.filter import BATCH
from vlmill.pipeline.filters.language.prose import CJK
from vlmill.pipeline.filters.language.script import HAN, HANGUL, KANA, Trait, measure_traits

BARS = {"zh": 0.99, "ja": 0.99, "other": 0.999}
SENTENCE_BAR = 0.999
Outcome = tuple[bool, bool]
"""Whether an item was dropped, and whether it was in doubt."""


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tuning", action="store_true")
    given = parser.parse_args()
    items = hard_set() + (corpus_items(given.corpus) if given.corpus else [])
    items = [item for item in items if item.scored != given.tuning]
    outcomes = filtered(items, Weights())
    _by_category(items, outcomes)
    if given.tuning:
        _mistakes(items, outcomes)
        return
    print(f"\nAll of the {'tuning' if given.tuning else 'scored'} half")
    _totals(items, outcomes, BARS)
    _ablation(items)
    print("\nTwo words of Han characters and nothing around them (no bar)")
    alone = [item for item in without_context(4 * PER_CATEGORY) if item.scored]
    _totals(alone, filtered(alone, Weights()), {})
    texts = [node.text or "" for item in items for node in item.sample.nodes]
    if given.corpus:
        sentences = list(_sentences(given.corpus))
        print("\nWhole sentences")
        _totals(sentences, filtered(sentences, Weights()), dict.fromkeys(BARS, SENTENCE_BAR))
        texts = [item.sample.nodes[0].text or "" for item in sentences]
        _documents(given.corpus / "obelics")
        _compare_settings(given.corpus / "obelics")
    _cost(texts)


def filtered(items: Sequence[Item], weights: Weights) -> list[Outcome]:
    """Outcomes node by node: a sample goes as a whole only if all of it is Chinese."""
    filter_ = Language(sample_share=1.0)
    dropped, doubtful = set[tuple[int, int]](), set[tuple[int, int]]()
    samples = [(row, item.sample) for row, item in enumerate(items)]
    for start in range(0, len(samples), BATCH):
        for finding in filter_.filter_batch(samples[start : start + BATCH], weights):
            (doubtful if isinstance(finding, Undecided) else dropped).add((finding.sample, finding.node))
    places = [(row, item.node) for row, item in enumerate(items)]
    return [(place in dropped or (place[0], WHOLE_SAMPLE) in dropped, place in doubtful) for place in places]


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share (Wilson 1927)."""
    share, square = right / total, z * z / total
    centre, spread = share + square / 2, z * math.sqrt((share * (1 - share) + square / 4) / total)
    return (centre - spread) / (1 + square), (centre + spread) / (1 + square)


def _right(item: Item, outcome: Outcome) -> bool:
    return outcome[0] == (item.language == "zh")


def _line(name: str, pairs: Sequence[tuple[Item, Outcome]], bar: float | None = None) -> None:
    right, total = sum(_right(*pair) for pair in pairs), len(pairs)
    low, high = wilson(right, total)
    doubtful = sum(outcome[1] for _, outcome in pairs) / total
    verdict = "" if bar is None else f"   bar {bar:.1%}: {'met' if right >= bar * total else 'MISSED'}"
    print(
        f"{name:38}{total:6}  right {right / total:7.2%}  [{low:7.2%}, {high:7.2%}]  undecided {doubtful:6.2%}{verdict}"
    )


def _by_category(items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
    groups: dict[tuple[str, str], list[tuple[Item, Outcome]]] = {}
    for pair in zip(items, outcomes, strict=True):
        groups.setdefault((pair[0].category, pair[0].language), []).append(pair)
    for (category, language), pairs in groups.items():
        _line(f"{category} ({language})", pairs)


def _totals(items: Sequence[Item], outcomes: Sequence[Outcome], bars: dict[str, float]) -> None:
    for language, done in (("zh", "dropped"), ("ja", "kept"), ("other", "kept")):
        pairs = [pair for pair in zip(items, outcomes, strict=True) if pair[0].language == language]
        if pairs:
            _line(f"{language} {done}", pairs, bars.get(language))


def _mistakes(items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
    for item, outcome in zip(items, outcomes, strict=True):
        if not _right(item, outcome):
            print(
                f"  {item.category} ({item.language}), {'undecided' if outcome[1] else 'wrong'}: "
                f"{item.sample.nodes[item.node].text!r}"
            )


def _ablation(items: Sequence[Item]) -> None:
    """Each rule's share of right decisions."""
    ours = Weights()
    rules: dict[str, Callable[[], list[Outcome]]] = {
        "script alone: Han and no kana": lambda: [(_bare_han(_text(item)), False) for item in items],
        "model alone: fastText's first choice": lambda: [
            ("zh" in lid.predict_languages(_text(item), 1), False) for item in items
        ],
        "all but characters": lambda: filtered(items, replace(ours, characters=0.0)),
        "all but model": lambda: filtered(items, replace(ours, model=0.0)),
        "all but matrix": lambda: filtered(items, replace(ours, matrix=0.0)),
        "all but context": lambda: filtered(items, replace(ours, context=0.0)),
        "all": lambda: filtered(items, ours),
    }
    print(f"\n{'Evidence':40}{'zh dropped':>12}{'ja kept':>12}{'other kept':>12}{'undecided':>12}")
    for name, rule in rules.items():
        outcomes = rule()
        right, total = Counter[str](), Counter(item.language for item in items)
        for item, outcome in zip(items, outcomes, strict=True):
            right[item.language] += _right(item, outcome)
        shares = "".join(f"{right[language] / total[language]:12.2%}" for language in BARS)
        print(f"{name:40}{shares}{sum(outcome[1] for outcome in outcomes) / len(items):12.2%}")


def _text(item: Item) -> str:
    return item.sample.nodes[item.node].text or ""


def _bare_han(text: str) -> bool:
    sums = measure_traits([text])[0]
    return bool(sums[Trait.HAN] > 0 and sums[Trait.KANA] == 0)


def _sentences(corpus: Path) -> Iterator[Item]:
    for number, line in enumerate((corpus / "languages" / "lang.jsonl").read_text("utf-8").splitlines()):
        row = json.loads(line)
        language = FAMILY.get(row["lang"], row["lang"])
        sample = Sample(SampleId("sentences", "lang.jsonl", number), (Node("text", text=row["text"]),))
        yield Item("sentences", language if language in {"zh", "ja"} else "other", sample, 0)


def _cost(texts: Sequence[str]) -> None:
    """CPU seconds of the filter and of bare fastText on the same texts, best of three, by turns."""
    samples = [
        (row, Sample(SampleId("cost", "text", row), (Node("text", text=text),))) for row, text in enumerate(texts)
    ]
    lines = [text.replace("\n", " ") for text in texts]
    print(f"\nCost against bare fastText on the same {len(texts)} texts (the default at most 1.5)")
    for name, filter_ in (("drop: [zh]", Language()), ("keep: [en]", Language(keep=("en",)))):
        ours, bare = [], []
        for _ in range(3):
            ours.append(_seconds(partial(_filter, filter_, samples)))
            bare.append(_seconds(lambda: [lid.load_model().predict(line) for line in lines]))
        print(f"{name:38}{min(ours) / min(bare):6.2f}  ({min(ours):.3f} s against {min(bare):.3f} s)")
    han = [(row, sample) for row, sample in samples if CJK.search(sample.nodes[0].text or "")]
    bare_han = _seconds(lambda: [lid.load_model().predict(lines[row]) for row, _ in han])
    print(f"{'drop: [zh], of those with Han or kana':38}{_seconds(partial(_filter, Language(), han)) / bare_han:6.2f}")


def _filter(filter_: Language, samples: Iterable[tuple[int, Sample]]) -> None:
    for _ in filter_.decide(samples, []):
        pass


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _documents(folder: Path, most: int = 50) -> None:
    """OBELICS documents: what was dropped by folder language, and where the folder disagrees."""
    if not (folder / "labels.jsonl").exists():
        return
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text("utf-8").splitlines()]
    samples = list(_documents_of(folder, labels))
    whole, nodes = set[int](), dict[int, list[int]]()
    for finding in Language().decide(enumerate(samples), []):
        if not isinstance(finding, Undecided):
            whole.add(finding.sample) if finding.node == WHOLE_SAMPLE else nodes.setdefault(finding.sample, []).append(
                finding.node
            )
    print(
        f"\n{len(samples)} documents: {len(whole)} go as a whole, {sum(map(len, nodes.values()))} nodes out of "
        f"{len(nodes)} others"
    )
    chinese = {row for row, label in enumerate(labels) if label["label"].startswith("zh")}
    strange = sorted((whole | nodes.keys()) - chinese)
    silent = sorted(chinese - whole - nodes.keys())
    print(f"dropped from folders of other languages: {len(strange)}; untouched in folders of Chinese: {len(silent)}")
    for row in (*strange, *silent)[:most]:
        text = next((node.text for node in samples[row].nodes if node.text), "")
        print(
            f"  {labels[row]['label']:6} Han share {labels[row]['han_share']:5.2f}  "
            f"{'dropped' if row in strange else 'kept'}  {text[:100]!r}"
        )


def _compare_settings(folder: Path) -> None:
    """What Han each setting leaves in documents without kana and Hangul, and what it takes of Japanese and Korean."""
    if not (folder / "labels.jsonl").exists():
        return
    labels = [json.loads(line) for line in (folder / "labels.jsonl").read_text("utf-8").splitlines()]
    whole = list(_documents_of(folder, labels))
    parts = [replace(sample, nodes=tuple(_split_paragraphs(sample))) for sample in whole]
    print(f"\n{'setting':44}{'documents with Han':>20}{'characters':>12}{'ja lost':>16}{'ko lost':>16}{'s':>7}")
    for name, filter_, samples in (
        ("drop: [zh], a node between two images", Language(), whole),
        ("drop: [zh], a node a paragraph", Language(), parts),
        ("the same, in_doubt: drop", Language(in_doubt="drop"), parts),
        ("the same, strict: true", Language(strict=True), parts),
    ):
        start = time.process_time()
        gone = {(found.sample, found.node) for found in filter_.decide(enumerate(samples), []) if _drops(found)}
        seconds, counts = time.process_time() - start, Counter[str]()
        for row, sample in enumerate(samples):
            texts = [node.text or "" for node in sample.nodes]
            left = [text for node, text in enumerate(texts) if not {(row, node), (row, WHOLE_SAMPLE)} & gone]
            for language, letters in (("ja", KANA), ("ko", HANGUL)):
                all_of, kept = (sum(bool(letters.search(text)) for text in part) for part in (texts, left))
                counts.update({language: all_of, f"{language} lost": all_of - kept})
            if not any(letters.search(text) for text in texts for letters in (KANA, HANGUL)):
                han = sum(len(HAN.findall(text)) for text in left)
                counts.update(documents=han > 0, characters=han)
        lost = "".join(f"{counts[f'{code} lost']:>6} of {counts[code]:>6}" for code in ("ja", "ko"))
        print(f"{name:44}{counts['documents']:>20}{counts['characters']:>12}{lost}{seconds:>7.1f}")


def _drops(finding: Finding) -> bool:
    return not isinstance(finding, Undecided)


def _split_paragraphs(sample: Sample) -> Iterator[Node]:
    for node in sample.nodes:
        if node.text is None:
            yield node
        else:
            yield from (Node("text", text=part) for part in node.text.split("\n\n") if part.strip())


def _documents_of(folder: Path, labels: Iterable[dict[str, object]]) -> Iterator[Sample]:
    tables: dict[str, list[list[str | None]]] = {}
    for label in labels:
        name, row = str(label["file"]), int(str(label["row"]))
        if name not in tables:
            tables = {name: pq.read_table(folder / "parquet" / name, columns=["texts"])["texts"].to_pylist()}
        nodes = tuple(Node("text", text=text) if text else Node("image", image=0) for text in tables[name][row])
        yield Sample(SampleId("obelics", name, row), nodes)


if __name__ == "__main__":
    main()
