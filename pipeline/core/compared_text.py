"""The one form in which texts are compared: by dedupe, decontamination and takedown.

Texts that look the same may differ in characters that show nothing: soft hyphens, zero-width characters, byte order
marks, variation selectors, marks of direction. Unicode calls them Default_Ignorable_Code_Point
(DerivedCoreProperties.txt, Unicode 17). They split words and change hashes, so they go before anything is compared.

Joiners (U+200C, U+200D) are among them. Where copies are recognised, they go everywhere, as in Unicode's
NFKC_Casefold: a copy of Persian or Hindi that lost them is a copy. Where texts have to be the same, they stay between
characters that they join or keep apart: of Arabic, the scripts of India, Burmese, Khmer, Mongolian (RFC 5892, appendix
A, names the places) and of emoji. Elsewhere they show nothing.
"""

from __future__ import annotations

import re
import unicodedata

IGNORABLE = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),  # Arabic letter mark
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian selectors and vowel separator
    (0x200B, 0x200F),  # zero-width space, joiners, marks of direction
    (0x202A, 0x202E),  # embeddings and overrides of direction
    (0x2060, 0x206F),  # word joiner, invisible operators, isolates
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFA0, 0xFFA0),  # half-width Hangul filler
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),  # of shorthand
    (0x1D173, 0x1D17A),  # of musical notation
    (0xE0000, 0xE0FFF),  # tags, more variation selectors
)
"""Default_Ignorable_Code_Point: first and last of each range."""

JOINED = (
    (0x0600, 0x0DFF),  # Arabic, Syriac, N'Ko and the scripts of India
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x18AF),  # Khmer, Mongolian
    (0x2190, 0x2BFF),  # symbols that emoji are joined of
    (0x1F000, 0x1FAFF),
)
"""Characters between which a joiner shows."""

UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # iteration mark, ideographic zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""Scripts without spaces between words: each of their characters is a word by itself."""

JOINERS = "\u200c\u200d"


def _list_characters(ranges: tuple[tuple[int, int], ...]) -> str:
    """The inside of a character class."""
    return "".join(f"{chr(start)}-{chr(stop)}" for start, stop in ranges)


_IGNORABLE = re.compile(f"[{_list_characters(IGNORABLE)}]+")
_BUT_JOINERS = re.compile(f"(?:(?![{JOINERS}])[{_list_characters(IGNORABLE)}])+")
_IDLE_JOINERS = re.compile(
    f"(?<![{_list_characters(JOINED)}])[{JOINERS}]+|[{JOINERS}]+(?![{_list_characters(JOINED)}{JOINERS}])"
)


def remove_ignorable(text: str) -> str:
    """The text without characters that show nothing; pure."""
    return text if text.isascii() else _IGNORABLE.sub("", text)


def clean_text(text: str) -> str:
    """The text as it has to be the same for an exact duplicate; pure.

    NFC, single spaces, and without characters that show nothing where they stand.
    """
    if not text.isascii():
        text = _IDLE_JOINERS.sub("", _BUT_JOINERS.sub("", text))
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold_text(text: str) -> str:
    """The text as copies of it are recognised; pure.

    Unicode's NFKC_Casefold (The Unicode Standard, section 3.13): compatibility forms composed, case folded, without
    characters that show nothing.
    """
    return unicodedata.normalize("NFKC", remove_ignorable(text)).casefold()


class _Separated(dict[int, str | int]):
    """What each code point becomes; made when it is first met."""

    def __missing__(self, point: int) -> str | int:
        character = chr(point)
        kept: str | int = point if unicodedata.category(character)[0] in "LMN" else " "
        if any(start <= point <= stop for start, stop in UNSPACED):
            kept = f" {character} "
        self[point] = kept
        return kept


_SEPARATED = _Separated()


def split_words(text: str) -> list[str]:
    """The words of a text, folded; pure.

    Letters, marks and numbers make words; a character of a script without spaces between words is one by itself; all
    else only separates. So copies may differ in case, punctuation and white space.
    """
    return fold_text(text).translate(_SEPARATED).split()
