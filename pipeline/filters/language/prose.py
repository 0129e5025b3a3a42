"""What of a text is language: not its code, addresses, markup and formulas; and what of the language is quotation.

Part of the language filter. Three decisions are taken here:

- Code is no language. What is left of a listing are its comments, and a string literal counts as little as code, so a
  listing with Chinese comments is Chinese and one that prints a Chinese greeting is nothing at all.
- Quotations and brackets say little about the language around them: `民主 (minzhu)` in an English sentence, `(CNN)` in
  a Chinese one. `remove_quotations` is the sentence around them.
- Words, not characters, are compared across scripts, and running words, not names: `split_running_words`.

What is judged at once is a paragraph: `split_paragraphs`.
"""

from __future__ import annotations

import re
import unicodedata

CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u318f\u31a0-\u31bf\u3400-\u9fff"
    "\ua960-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U000323af]+"
)
"""Runs of Chinese, Japanese and Korean letters: none of these, no Chinese."""

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_FENCED_OR_BREAK = re.compile(r"(```[^\n`]*\n.*?(?:```|\Z))|\n(?:[^\S\n]*\n)+|\u2029", re.DOTALL)
_MARK = re.compile(r"[;{}=<>#*&|_\\`$]|//|www")
_ADDRESS = r"[!-~]*(?:(?<=[/=_])[^\W\d_]+[!-~]*)*"  # with a path in any script after a slash
_HOST = r"(?:(?![!-~])[^\W_]+(?:\.[^\W_]+)+)?"  # in another script: 例子.测试
_MARKUP = re.compile(  # every branch starts with another letter, which lets re skip to candidates
    rf"https?://{_HOST}{_ADDRESS}|www\.{_ADDRESS}|`[^`\n]*`|</?[A-Za-z!][^<>\n]{{0,300}}>|&\#?\w{{1,8}};"
    r"|\$[^$\n]{0,200}[\\^_{=][^$\n]{0,200}\$|\\[A-Za-z]+"  # formulas
)
_SIGN = re.compile(r"[;{}=<>+*&|_\\#$]|//|[A-Za-z_](?:\([ -~]{0,200}\)|\[[ -~]{0,200}\])")
_STATEMENT = re.compile(
    r"\s*(?:import [\w.]+(?: as \w+)?\s*;?$|from [\w.]+ import |(?:async )?def \w+\(|class "
    r"\w+(?:\(.*\))?:$|@\w+(?:\(.*\))?$"
    r"|(?:for \w+ in|(?:if|elif|while|with) .*[()=<>.]).*:$|(?:else|try|finally|except\b[ \w.]*):$|return\b(?: "
    r"[\w.()\[\]]+)?;?$"
    r"|(?:const|let|var) \w+ =|(?:public|private|protected|static|export) .*;$"
    r"|[A-Za-z_][A-Za-z0-9_.]*(?:\s*=\s*[\"'\[({\d].*|\(.*\);?)$"
    r"|\$ [a-z]|>>> |(?:pip3?|npm|apt-get|brew|git|sudo|docker|conda|curl|wget|yarn) [a-z-])"
)
_MARGIN = re.compile(r"//+|(?<![\w&])#+|/\*+|<!--|(?:^|(?<= ))--(?= )|^\s*\*(?=\s)")  # where a comment begins
_LITERAL = re.compile(r'"[^"\n]*"|\'[^\'\n]*\'')
_ASCII_WORD = re.compile(r"[!-~]+")
_QUOTATION = re.compile(
    r'"[^"\n]{1,400}"|“[^”\n]{1,400}”|[\'‘](?<!\w[\'‘])[^\'’\n]{1,400}[\'’](?!\w)'  # noqa: RUF001 - quotation marks
    r"|「[^」\n]{1,400}」|『[^』\n]{1,400}』|《[^》\n]{1,400}》|«[^»\n]{1,400}»|\([^()\n]{1,400}\)|\[[^\[\]\n]{1,400}\]"
)
_WORD = re.compile(r"(?<![A-Za-z0-9_./\\@#$=<>-])[^\W\d_]{2,}(?:['’-][^\W\d_]+)*(?![A-Za-z0-9_/\\@(]|\.\w|\s*[=<>])")  # noqa: RUF001 - an apostrophe

CODE_SIGNS = 0.05  # of a line's characters: "n == values.length" has 0.11, English below 0.02
NAME = 0.5  # of a running word: what counts of a capitalised word, which may be a term or a name in any language
LONG = 8  # letters a word: scripts without spaces come as one long word


def split_paragraphs(text: str, most: int) -> list[str]:
    """The paragraphs of a text, in order: what blank lines divide, longer ones in pieces of `most` characters.

    A fenced listing is not divided at its blank lines. Only white space is left out. Pure.
    """
    found, start = list[str](), 0
    for mark in _FENCED_OR_BREAK.finditer(text):
        if not mark[1]:
            found.append(text[start : mark.start()])
            start = mark.end()
    found = [part.strip() for part in (*found, text[start:])]
    return [part[begin : begin + most] for part in found for begin in range(0, len(part), most)]


def extract_prose(text: str) -> str:
    """The language in a text: width folded (NFKC), code reduced to its comments, markup, addresses and formulas gone.

    Pure.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _FENCE.sub(
        lambda fence: "\n".join(_extract_prose(line, in_listing=True) for line in fence[1].split("\n")), text
    )
    text = _MARKUP.sub(" ", text)
    return "\n".join(_extract_prose(line) for line in text.split("\n"))


def is_plain(text: str) -> bool:
    """Whether nothing in a text looks like code, markup or an address."""
    return _MARK.search(text) is None


def remove_quotations(text: str) -> str:
    """A text without what stands in quotation marks and brackets on one line."""
    return _QUOTATION.sub(" ", text)


def split_running_words(text: str) -> float:
    """Running words of scripts other than Chinese, Japanese and Korean, in a text that `extract_prose` has cleaned.

    Identifiers and single letters (what OCR leaves of stains) do not count, capitalised words count `NAME`.
    """
    total = 0.0
    for word in _WORD.findall(CJK.sub(" ", text)):
        total += NAME if word[0].isupper() else max(1.0, len(word) / LONG)
    return total


def _extract_prose(line: str, *, in_listing: bool = False) -> str:
    """The prose of a line: the line itself or, of code, its comment and what is neither ASCII nor a literal."""
    mark = _MARGIN.search(line)
    code, comment = (line[: mark.start()], line[mark.end() :]) if mark else (line, "")
    return (
        (_strip_code(code) if in_listing or _is_code(code) else code)
        + " "
        + (_strip_code(comment) if _is_code(comment) else comment)
    )


def _strip_code(code: str) -> str:
    return _ASCII_WORD.sub(" ", _LITERAL.sub(" ", code))


def _is_code(text: str) -> bool:
    text = text.rstrip()
    if text.endswith(("{", "}")) or (text.endswith(";") and text.count(" ") < 4):  # a list item that ends so is longer
        return True
    signs = len(_SIGN.findall(text))
    return (signs >= 2 and (signs >= CODE_SIGNS * len(text) or text.endswith(";"))) or _STATEMENT.match(
        text
    ) is not None
