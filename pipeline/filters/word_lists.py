"""Lists of words by language, for the filter `text_quality`, and the language that a text is looked up under.

Stop words are those of stopwords-iso (58 languages, MIT), which the package stopwordsiso carries. Flagged words are our
own, few, and in eight languages: as in ROOTS (Laurencon et al. 2022, arXiv:2303.03915) only words that hardly occur
outside of pornography. The long lists that packages carry hold words of medicine, of religion and of minorities, and
filters made of them drop what these people write (Dodge et al. 2021, arXiv:2104.08758).

Common words are those that the package wordfreq (Speer 2022, 10.5281/zenodo.7199437) found at least once in 100 million
words of Wikipedia, subtitles, news, books, the web and forums, until 2021: in English 321 thousand. OBELICS counted the
words of OSCAR and left out those that came once, which is longer and was not published. wordfreq is finished: what is
in it stays as it is, and was counted before programs wrote much of the web.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache

import stopwordsiso

from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.filters.language import lid

SURE = 0.5  # probability from which a text is looked up under its language
CHARACTERS = 1200  # that are seen of a text,
OF_SAMPLE = 1 << 16  # and of all texts of a sample: a translated heading says little about the page below it

UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo"})
"""Languages without spaces: what stands in a list of theirs is no word that `measures.split_words` finds."""

FLAGGED: Mapping[str, frozenset[str]] = {
    language: frozenset(text.split())
    for language, text in {
        "en": "blowjob blowjobs bukkake camgirl camgirls camwhore cumshot cumshots cunnilingus deepthroat dildo dildos "
        "fellatio footjob gangbang gangbangs gloryhole handjob handjobs hentai jizz milf milfs porn porno pornstar "
        "pornstars pussies rimjob shemale shemales sluts strapon threesome threesomes titties twinks upskirt xxx",
        "de": "arschfick blowjob ficken fickt fotze fotzen muschis nutten porno pornos titten wichsen wichst",
        "es": "chupapollas follada follando follar mamadas porno pornos tetas tetonas",
        "fr": "branlette enculer nichons partouze porno pornos salopes suceuse",
        "it": "bocchino pompini pompino porno puttane sborra sborrata scopata",
        "nl": "beffen kutje kutten neuken neukt porno sletten",
        "pt": "boquete buceta foder gozada porno pornô punheta putaria suruba transando xoxota",
        "ru": "блядь ебать ебет минет пизда порно порнуха сиськи трахает трахать трахнул хуй шлюхи",
    }.items()
}


def guess_language(text: str, characters: int = CHARACTERS) -> str | None:
    """The code of the language that most of a text is in, or None where that is open; `characters` are seen. Pure."""
    found = lid.predict_languages(text[:characters], most=1)
    code, probability = max(found.items(), key=lambda item: item[1], default=("", 0.0))
    return code if probability >= SURE else None


@cache
def get_stop_words(code: str) -> Collection[str] | None:
    """Words that hold sentences together in a language, in lower case; None where no list serves."""
    if code in UNSPACED or not stopwordsiso.has_lang(code):
        return None
    return frozenset(word.lower() for word in stopwordsiso.stopwords(code))


class CommonWords(Collection[str]):
    """Words of a language that are not rare. A compound is common if its parts are: well-known, and/or, harbour's."""

    _PARTS = re.compile(r"[^\W_]+")

    def __init__(self, words: frozenset[str]) -> None:
        self.words = words

    def __contains__(self, word: object) -> bool:
        if word in self.words:
            return True
        parts = self._PARTS.findall(str(word))
        return bool(parts) and all(part in self.words for part in parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __len__(self) -> int:
        return len(self.words)


@cache
def get_common_words(code: str) -> Collection[str] | None:
    """Words that come at least once in 100 million of a language; None where they were not counted so far.

    Raises:
        RecipeError: the package wordfreq is not installed.
    """
    try:
        import wordfreq  # noqa: PLC0415 - an extra
    except ImportError:
        raise RecipeError(
            "text_quality: min_common_words needs the package wordfreq; run, in the clone of vlmill: "
            "pip install '.[words]'"
        ) from None
    name = {"no": "nb"}.get(code, code)
    if code in UNSPACED or name not in wordfreq.available_languages("large"):
        return None
    return CommonWords(frozenset(word for words in wordfreq.get_frequency_list(name, "large") for word in words))
