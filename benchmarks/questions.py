"""Which questions of a benchmark are found in training data with a word changed, and which others are taken for them.

    python -m benchmarks.questions [--corpus DIR] [--half 0|1] [--most N]

Recall: each question stands in the index, and is looked for as it is and with one word replaced, left out or added, as
a turn with its answer and as a paragraph of a document without it. False matches: half of the questions of a set stand
in the index, and the other half, none of which is among them, is looked for. Most are made from templates, so they
differ by a word or two that matter: `templates` are grammars in this file, of which the index holds as much as
`shares` says; in DIR are `cauldron/*/*.parquet` and `obelics/parquet/*.parquet` (sentences of 8 to 40 words, that is
prose that no template made). Questions fall into halves by a hash: thresholds were chosen on half 0.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.dedupe_steps import read_texts
from vlmill.pipeline.core.compared_text import split_words
from vlmill.pipeline.core.sample import (
    IMAGES,
    Node,
    Sample,
    SampleId,
    read_rows,
    write_image_stats,
    write_rows,
    write_samples,
)
from vlmill.pipeline.decontaminate import BuildIndex, Decontamination
from vlmill.pipeline.decontaminate.index import FOLDER, read_index
from vlmill.pipeline.decontaminate.texts import Search, split_passages

Question = tuple[str, str]
"""What is asked, and the answer."""

LENGTHS = ((8, 12), (13, 19), (20, 39), (40, 999))
"""Words of a question, for recall: first and last."""

SHARES = (0.5, 0.02)
"""Of a template's questions, what stands in the index."""


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.questions")
    arguments.add_argument("--corpus", type=Path)
    arguments.add_argument("--half", type=int, choices=(0, 1), default=1)
    arguments.add_argument("--most", type=int, default=3000)
    given = arguments.parse_args()
    natural = read_corpus(given.corpus) if given.corpus else {}
    sets = {**natural, **{f"template: {name}": list(make()) for name, make in TEMPLATES.items()}}
    sets = {name: choose(questions, given.half, given.most) for name, questions in sets.items()}
    for name, questions in sets.items():
        measure_recall(name, questions, [word for text, _ in questions for word in text.split() if word.isalpha()])
    for name, questions in sets.items():
        for share in SHARES:
            measure_false(name, questions, share)


def read_corpus(corpus: Path) -> dict[str, list[Question]]:
    """The questions of each set of The Cauldron, and sentences of web documents with the one behind as the answer."""
    found = dict[str, list[Question]]()
    for folder in sorted((corpus / "cauldron").iterdir()):
        rows = (row for path in sorted(folder.glob("*.parquet")) for row in read_rows(path, ["texts"]))
        found[folder.name] = [(turn["user"], turn["assistant"]) for row in rows for turn in row["texts"]]
    sentences = [line for text in read_texts(corpus) for line in re.split(r"(?<=[.?!])\\s+|\n", text)]
    pairs = itertools.pairwise(line for line in sentences if line.isascii())
    found["sentences of web documents"] = [(a, b) for a, b in pairs if 8 <= len(a.split()) <= 40]
    return found


def choose(questions: Iterable[Question], half: int, most: int) -> list[Question]:
    """Different questions of one half, in an order that says nothing."""
    by_words = {" ".join(split_words(text)): (text, answer) for text, answer in questions}
    drawn = sorted((draw(words), words) for words in by_words)
    return [by_words[words] for number, words in drawn if number % 2 == half][:most]


def draw(text: str) -> int:
    """A number that a text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def replaced(words: list[str], place: int, other: str) -> list[str]:
    """Another word in the place of one."""
    return [*words[:place], other, *words[place + 1 :]]


def left_out(words: list[str], place: int, _: str) -> list[str]:
    """One word less."""
    return [*words[:place], *words[place + 1 :]]


def added(words: list[str], place: int, other: str) -> list[str]:
    """One word more."""
    return [*words[:place], other, *words[place:]]


CHANGES: Mapping[str, Callable[[list[str], int, str], list[str]]] = {
    "as it is": lambda words, _, __: words,
    "one replaced": replaced,
    "one left out": left_out,
    "one added": added,
}


def measure_recall(name: str, questions: Sequence[Question], pool: Sequence[str]) -> None:
    """Print the share of the questions that are found, by their length and what was changed."""
    search = make_search(questions)
    for first, last in LENGTHS:
        rows = [row for row, (text, _) in enumerate(questions) if first <= len(split_words(text)) <= last]
        if len(rows) < 10:
            continue
        told = list[str]()
        for change, alter in CHANGES.items():
            found = [0, 0]
            for row in rows:
                text, answer = questions[row]
                words, seed = text.split(), random.Random(f"{row} {change}")
                place = seed.choice([place for place, word in enumerate(words) if word.isalpha()] or [0])
                changed = " ".join(alter(words, place, seed.choice(pool)))
                found[0] += row in look_up(search, changed, answer)
                found[1] += row in look_up(search, f"It was late. {changed} Nobody knew.", None)
            told.append(f"{change} {found[0] / len(rows):.3f} {found[1] / len(rows):.3f}")
        print(f"{name}, {first} to {last} words, {len(rows)}: recall with answer, alone: {'; '.join(told)}", flush=True)


def measure_false(name: str, questions: Sequence[Question], share: float) -> None:
    """Print how many of the questions that are not in the index are taken for one that is."""
    held = [question for question in questions if draw("held" + question[0]) % 10000 < share * 10000]
    others = [question for question in questions if question not in set(held)]
    search, found, shown = make_search(held), Counter[str](), list[str]()
    for text, answer in others:
        for form, said in (("with answer", answer), ("alone", None)):
            if hit := look_up(search, text, said):
                found[form] += 1
                shown.append(f"    {text!r} for {held[min(hit)][0]!r}")
    rates = ", ".join(f"{form} {found[form] / max(1, len(others)):.5f}" for form in ("with answer", "alone"))
    print(f"{name}, {len(held)} in the index: false of {len(others)}: {rates}")
    print("\n".join(shown[:3]), flush=True)


def make_search(questions: Sequence[Question]) -> Search:
    """The index of a benchmark of questions without pictures."""
    folder = Path(tempfile.mkdtemp())
    nodes = [
        (Node("text", "user", text=text), Node("text", "assistant", supervised=True, text=answer))
        for text, answer in questions
    ]
    samples = (Sample(SampleId("exam", "f", row), each) for row, each in enumerate(nodes))
    write_samples(folder / "samples.parquet", samples)
    write_image_stats(folder / "image_stats.parquet", [])
    write_rows(folder / "images.parquet", IMAGES, [])
    inputs = {f"exam/0/{path.name}": path for path in folder.iterdir()}
    (out := folder / "index").mkdir()
    BuildIndex(image=0.95).run(inputs, out)
    settings = Decontamination(against={})
    return Search(read_index({f"{FOLDER}/{path.name}": path for path in out.iterdir()}), settings.text)


def look_up(search: Search, text: str, answer: str | None) -> set[int]:
    """The rows of the questions that a turn asks, or without an answer a document."""
    nodes = [Node("text", "none" if answer is None else "user", text=text)]
    if answer is not None:
        nodes.append(Node("text", "assistant", text=answer))
    passages = list(split_passages(0, Sample(SampleId("train", "f", 0), tuple(nodes)), search.benchmarks))
    hits = search.hits(passages, [None] * len(passages))
    return {int(search.benchmarks.items[hit.item].id.rpartition("#")[2]) for hit in hits}


def fill(patterns: Sequence[str], slots: Mapping[str, Sequence[str]], answers: Sequence[str]) -> Iterable[Question]:
    """Patterns with every slot filled, 4,000 of each."""
    for pattern in patterns:
        seed, names = random.Random(pattern), re.findall(r"\{(\w+)\}", pattern)
        for _ in range(4000):
            text = pattern
            for name in names:
                text = text.replace(f"{{{name}}}", seed.choice(slots[name]), 1)
            yield text, seed.choice(answers)


def make_scenes() -> Iterable[Question]:
    """Questions about scenes of solids, in the manner of CLEVR (Johnson et al., 2017)."""
    slots = {
        "z": ["large", "small", "big", "tiny"],
        "c": ["gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"],
        "m": ["rubber", "metal", "matte", "shiny", "metallic"],
        "s": ["cube", "sphere", "cylinder", "block", "ball", "thing", "object"],
        "r": ["left of", "right of", "behind", "in front of"],
        "a": ["color", "material", "shape", "size"],
    }
    patterns = [
        "Subtract all {z} {m} {s}s. Subtract all {c} {s}s. How many objects are left?",
        "There is a {z} {s} that is the same color as the {z} {m} {s}; what material is it?",
        "Is the number of {z} {s}s that are {r} the {c} {s} less than the number of {m} {s}s?",
        "What {a} is the {z} {s} that is both {r} the {c} {m} {s} and {r} the {z} {c} {s}?",
        "Are there any other things that have the same {a} as the {c} {m} {s}?",
        "How many other objects are there of the same {a} as the {z} {c} {m} {s}?",
    ]
    return fill(patterns, slots, ["yes", "no", "1", "2", "3", "rubber", "metal", "cube", "red"])


def make_charts() -> Iterable[Question]:
    """Questions about charts, in the manner of FigureQA, DVQA and ChartQA."""
    places = [
        "Norway",
        "Brazil",
        "Kenya",
        "Japan",
        "Canada",
        "Chile",
        "Egypt",
        "France",
        "Poland",
        "Vietnam",
        "Peru",
        "Ghana",
        "Spain",
        "Turkey",
        "India",
    ]
    slots = {
        "p": places,
        "k": ["bar", "line", "slice", "column", "segment"],
        "w": ["highest", "lowest", "smallest", "largest", "second highest", "median"],
        "u": ["population", "exports", "imports", "emissions", "income", "rainfall", "unemployment", "tourism"],
        "t": ["1990", "2000", "2005", "2010", "2015", "2020"],
        "d": ["increase", "decrease", "change", "fall", "rise"],
    }
    patterns = [
        "Which country had the {w} {u} among all of those that are shown in the chart in {t}?",
        "What is the difference between the {u} of {p} and the {u} of {p} in the year {t}?",
        "By how many percentage points did the {u} of {p} {d} between the years that are shown in the chart?",
        "Does the {k} for {p} in the {u} chart stand for a value that is larger than that of {p}?",
        "According to the legend of this chart, which {k} shows the {u} of {p} compared with that of {p}?",
    ]
    return fill(patterns, slots, ["yes", "no", *places, "12", "3.5"])


def make_papers() -> Iterable[Question]:
    """Questions about forms, receipts and pages."""
    slots = {
        "f": ["invoice number", "total amount", "date of birth", "phone number", "postal code", "name", "address"],
        "o": ["sender", "recipient", "customer", "applicant", "cashier", "supplier", "company", "employee"],
        "d": ["receipt", "invoice", "letter", "form", "contract", "report", "memo", "page"],
        "w": ["top", "bottom", "upper left corner", "upper right corner", "last line", "first line", "header"],
    }
    patterns = [
        "What is the {f} of the {o} that is written in the {w} of this {d}?",
        "Please read the {d} and tell me the {f} of the {o} exactly as it is printed there.",
        "Where on this {d} can I find the {f} of the {o}, in the {w} or in the {w}?",
        "Does the {d} that is shown here name the {f} of the {o} in its {w}?",
    ]
    return fill(patterns, slots, ["yes", "no", "12", "Smith", "3 May", "in the header"])


TEMPLATES = {"scenes": make_scenes, "charts": make_charts, "papers": make_papers}


if __name__ == "__main__":
    main()
