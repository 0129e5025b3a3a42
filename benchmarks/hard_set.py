"""The hard set of the language filter.

Short, mixed, noisy and borderline texts whose language is known because they were made.

Everything is combined from `tests/helpers/hard_set_words.py`; with a corpus folder, sentences of known language are cut
and put into context too. Items are chosen and split by hashes of what they say, so the set is the same everywhere, and
tuning never sees what is scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

from tests.helpers.hard_set_words import (
    ABOUT_TERMS,
    AROUND,
    COMMENTS,
    HANJA,
    KOREAN_ENDINGS,
    LISTINGS,
    LITERALS,
    PAIRS,
    PINYIN,
    PREDICATES,
    QUOTES,
    SINGLES,
    SUBJECTS,
    TERMS,
    TONED,
)
from vlmill.pipeline.core.sample import Node, Sample, SampleId

PER_CATEGORY = 600
CHINESE = ("zh-Hans", "zh-Hant", "yue")
SPACED = frozenset({"en", "ko"})


@dataclass(frozen=True, slots=True)
class Item:
    """One node in its sample, and whether it is `zh`, `ja` or anything `other`."""

    category: str
    language: str
    sample: Sample
    node: int

    @property
    def scored(self) -> bool:
        """Whether it belongs to the half that is scored; the other half is for tuning."""
        return _draw(repr((self.category, self.sample.nodes, self.node))) % 2 == 1


def hard_set(per_category: int = PER_CATEGORY) -> list[Item]:
    """All made items, about `per_category` of each category, in a fixed order."""
    return [item for name, make in CATEGORIES.items() for item in _choose(name, make(), per_category)]


def corpus_items(corpus: Path, per_category: int = PER_CATEGORY) -> list[Item]:
    """Items cut from sentences of known language: `languages/lang.jsonl` in `corpus`, rows of lang and text."""
    rows = map(json.loads, (corpus / "languages" / "lang.jsonl").read_text("utf-8").splitlines())
    by_language: dict[str, list[str]] = {}
    for row in rows:
        by_language.setdefault(FAMILY.get(row["lang"], row["lang"]), []).append(row["text"])
    found = [
        ("corpus clauses in context", _clauses(by_language)),
        ("corpus pages of zh and ja", _interleaved(by_language)),
    ]
    return [item for name, items in found for item in _choose(name, items, per_category)]


def sentence(language: str, number: int) -> str:
    """The sentence with this number, of len(SUBJECTS) x len(PREDICATES) there are."""
    subjects, predicates = SUBJECTS[language], PREDICATES[language]
    subject, predicate = subjects[number % len(subjects)], predicates[(number // len(subjects)) % len(predicates)]
    return f"{subject} {predicate}" if language in SPACED else subject + predicate


FAMILY = dict.fromkeys(("zh-Hant", "yue", "wuu", "hak", "nan"), "zh")

Made = tuple[str, tuple[str, ...], int]
"""Language, texts of a document, and which of them is the item; texts of a conversation carry their role in front."""


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _choose(category: str, made: Iterable[Made], most: int) -> Iterator[Item]:
    ordered = sorted(dict.fromkeys(made), key=lambda each: (_draw(repr(each)), each))
    for number, (language, texts, node) in enumerate(islice(ordered, most)):
        nodes = tuple(_node(index, text) for index, text in enumerate(texts))
        yield Item(category, language, Sample(SampleId("hard", category, number), nodes), node)


def _node(index: int, text: str) -> Node:
    for role in ("user", "assistant"):
        if text.startswith(f"{role}: "):
            return Node("text", role=role, turn=index // 2, text=text.removeprefix(f"{role}: "))
    return Node("text", text=text)


def _page(language: str, seed: str, count: int = 4) -> list[str]:
    return [sentence(language, _draw(f"{seed} {index}")) for index in range(count)]


def _family(language: str) -> str:
    return "zh" if language in CHINESE else language if language == "ja" else "other"


def _inside(language: str, short: str, page: str) -> Made:
    """A short node as the heading of a paragraph in the middle of a page."""
    texts = _page(page, f"{short} {page}")
    return _family(language), (*texts[:2], short, *texts[2:]), 2


def _headings(language: str) -> Iterator[Made]:
    for first, second in product(*PAIRS[language]):
        yield _inside(language, first + second, language)


def _short() -> Iterator[Made]:
    for language, alone in SINGLES.items():
        for short, number in product(alone, range(8)):
            texts = _page(language, f"{short} {number}")
            yield _family(language), (*texts[: number % 4], short, *texts[number % 4 :]), number % 4
        for short, other in zip(alone, reversed(alone), strict=True):  # a list of short nodes, one sentence before it
            yield _family(language), (_page(language, short, 1)[0], other, short, other), 2


def _without_context() -> Iterator[Made]:
    for language, (firsts, seconds) in PAIRS.items():
        for first, second in product(firsts, seconds):
            yield _family(language), (first + second,), 0


def _mixed_pages() -> Iterator[Made]:
    """Sections of Chinese and Japanese by turns, each with a heading; every node is an item."""
    for number in range(60):
        chinese = ("zh-Hans", "zh-Hant")[number % 2]
        texts, languages = [], []
        for section in range(4):
            language = (chinese, "ja")[(section + number // 2) % 2]
            firsts, seconds = PAIRS[language]
            draw = _draw(f"{number} {section}")
            texts += [firsts[draw % len(firsts)] + seconds[draw % len(seconds)], *_page(language, f"{draw}", 2)]
            languages += [_family(language)] * 3
        for node, language in enumerate(languages):
            yield language, tuple(texts), node


def _foreign_paragraphs() -> Iterator[Made]:
    """A paragraph of one language on a page of another."""
    for number in range(1200):
        inner, outer = (
            ("zh-Hans", "en"),
            ("zh-Hant", "en"),
            ("ja", "en"),
            ("en", "zh-Hans"),
            ("yue", "en"),
            ("zh-Hans", "ko"),
        )[number % 6]
        texts = _page(outer, f"outer {number}", 8)
        yield _family(inner), (*texts[:4], sentence(inner, number // 6), *texts[4:]), 4


def _hanja() -> Iterator[Made]:
    for first, second in product(HANJA, HANJA):
        ending = KOREAN_ENDINGS[_draw(first + second) % len(KOREAN_ENDINGS)]
        yield "other", (ending.format(first, second),), 0
        yield _inside("ko", f"{first} {second}", "ko")
        yield "other", (ending.format(first, second), first, ending.format(second, first)), 1


def _quotations() -> Iterator[Made]:
    for around, quote in product(AROUND, QUOTES):
        yield "other", (around.format(quote),), 0


def _noisy() -> Iterator[Made]:
    for number in range(1200):
        language = ("zh-Hans", "zh-Hant", "ja", "en")[number % 4]
        text = "".join(_page(language, f"noise {number}", 2))
        yield _family(language), (_stain(text, f"{number}"),), 0


STAINS = "l|I1.,'`-_·~^*\"口丨"
CONFUSED = dict(zip("一二口工力夕卜八日曰己已末未土士人入", "ー二囗エカタトハ曰日已己未末士土入人", strict=True))


def _stain(text: str, seed: str) -> str:
    """What a scanner makes of a text: stains, gaps, lost and confused characters, about one in six."""
    made = []
    for index, character in enumerate(text):
        draw = _draw(f"{seed} {index}")
        match draw % 36:
            case 0:
                made.append(STAINS[draw // 36 % len(STAINS)])
            case 1 | 2:
                made.append(character + " ")
            case 3:
                pass
            case 4:
                made.append(character + STAINS[draw // 36 % len(STAINS)])
            case _:
                made.append(CONFUSED.get(character, character))
    return "".join(made)


def _listings() -> Iterator[Made]:
    """Chinese comments make a listing Chinese; Chinese literals do not."""
    for number, (first, second) in enumerate(product(COMMENTS, COMMENTS)):
        page = _page("en", f"listing {number}")
        commented = LISTINGS[number % len(LISTINGS)].format(first, second).replace("|", "\n")
        quoted = LITERALS[number % len(LITERALS)].format(first, second).replace("|", "\n")
        yield "zh", (*page[:2], commented, *page[2:]), 2
        yield "zh", (f"```\n{commented}\n```",), 0
        yield "other", (*page[:2], quoted, *page[2:]), 2


def _widths() -> Iterator[Made]:
    """Half-width katakana, full-width Latin letters and digits."""
    for number in range(400):
        name = ("ﾌｧｲﾙ", "ﾌﾟﾘﾝﾀ", "ﾈｯﾄﾜｰｸ", "ﾃﾞｰﾀ", "ﾕｰｻﾞ")[number % 5]
        first, second = PAIRS["ja"][0][number % 50], PAIRS["ja"][1][number // 5 % 50]
        yield "ja", (f"{name}{first}{second}",), 0
        wide = "".join(
            chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in f"ABC{number}"
        )
        yield "zh", (f"{wide}\uff1a{sentence(('zh-Hans', 'zh-Hant')[number % 2], number)}",), 0
        yield "ja", (f"{wide}\uff1a{sentence('ja', number)}",), 0
        full = "".join(
            chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character
            for character in sentence("en", number)
        )
        yield "other", (full,), 0


def _romanised() -> Iterator[Made]:
    for first, second, third in product((*PINYIN, *TONED), repeat=3):
        if first < second < third:
            yield "other", (f"{first}. {second}. {third}.",), 0
            yield "other", (sentence("en", _draw(first + second)), f"{first}, {third}"), 1


def _terms() -> Iterator[Made]:
    """Chinese with English terms in it, on a Chinese page."""
    for about, first, second in product(ABOUT_TERMS, TERMS, TERMS):
        if first != second:
            language = "zh-Hant" if "檔" in about else "zh-Hans"
            texts = _page(language, f"{about} {first} {second}")
            yield "zh", (*texts[:2], about.format(first, second), *texts[2:]), 2


def _conversations() -> Iterator[Made]:
    """Turns in several languages; the answer is a single word of the same language."""
    for number in range(300):
        turns, languages = [], []
        for place, language in enumerate(("en", "ja", ("zh-Hans", "zh-Hant")[number % 2], "ko")):
            draw = _draw(f"{number} {place}")
            answer = (
                SINGLES[language][draw % len(SINGLES[language])]
                if language in SINGLES
                else sentence(language, draw).split()[0]
            )
            turns += [f"user: {sentence(language, draw)}", f"assistant: {answer}"]
            languages += [_family(language)] * 2
        for node in (2, 3, 4, 5):
            yield languages[node], tuple(turns), node


CATEGORIES: dict[str, Callable[[], Iterable[Made]]] = {
    "ja headings of kanji": lambda: _headings("ja"),
    "zh headings, simplified": lambda: _headings("zh-Hans"),
    "zh headings, traditional": lambda: _headings("zh-Hant"),
    "1 to 6 characters": _short,
    "pages of zh and ja": _mixed_pages,
    "foreign paragraphs": _foreign_paragraphs,
    "Korean with hanja": _hanja,
    "Han quotations": _quotations,
    "OCR noise": _noisy,
    "code, zh comments": _listings,
    "half and full width": _widths,
    "romanised Chinese": _romanised,
    "zh with English terms": _terms,
    "conversations": _conversations,
}
WITHOUT_CONTEXT = "no context at all"  # reported, outside the bars: many are spelt the same in both languages


def without_context(per_category: int = PER_CATEGORY) -> list[Item]:
    """Two words of Han characters and nothing else."""
    return list(_choose(WITHOUT_CONTEXT, _without_context(), per_category))


def _clauses(by_language: dict[str, list[str]]) -> Iterator[Made]:
    """Runs of 2 to 12 Han characters out of one sentence, between others of the same language."""
    for language in ("zh", "ja"):
        texts = by_language[language]
        for index in range(2, len(texts) - 2):
            for clause in _han_runs(texts[index]):
                yield language, (texts[index - 2], texts[index - 1], clause, texts[index + 1], texts[index + 2]), 2


def _han_runs(text: str) -> Iterator[str]:
    run = ""
    for character in f"{text}.":
        if "\u4e00" <= character <= "\u9fff":
            run += character
        else:
            if 2 <= len(run) <= 12:
                yield run
            run = ""


def _interleaved(by_language: dict[str, list[str]]) -> Iterator[Made]:
    """Pages of three sentences of each language by turns."""
    languages: Sequence[str] = ("ja", "zh")
    for number in range(0, 390, 3):
        texts = [by_language[language][number + index] for index in range(3) for language in languages]
        for node in range(6):
            yield languages[node % 2], tuple(texts), node
