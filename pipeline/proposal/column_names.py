"""Names that the field has for columns of captions, questions, answers and conversations, for `vlmill new`.

In small letters, the usual first: English ones, then those of other languages.
"""

from __future__ import annotations

import re

WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])")

CAPTIONS = (
    *("caption", "text", "txt", "description", "alt_text", "alt", "title", "summary", "ocr", "html"),
    *("beschreibung", "bildunterschrift", "légende", "legende", "descripción", "descripcion", "descrição", "descricao"),
    *("descrizione", "描述", "标题"),
)
QUESTIONS = (
    *("question", "query", "prompt", "instruction", "problem", "asked", "input", "inputs", "user", "q", "prefix"),
    *("questions", "queries"),
    *("frage", "pregunta", "pergunta", "domanda", "vraag", "вопрос", "问题", "質問", "질문"),
)
ANSWERS = (
    *("answer", "response", "output", "outputs", "completion", "reply", "solution", "target", "correct_choice_idx"),
    *("correct", "assistant", "answers"),
    *(
        "antwort",
        "réponse",
        "reponse",
        "respuesta",
        "resposta",
        "risposta",
        "antwoord",
        "ответ",
        "答案",
        "回答",
        "답변",
    ),
    *("suffix", "label"),
)
TURNS = ("conversations", "messages", "conversation", "dialogue", "dialog", "turns", "chat", "qa", "qas", "qa_pairs")
PARTS = ("prompt", "completion")
"""What TRL calls the two parts of a conversation, of which the second is supervised."""
CHOICES = ("choices", "options")
BEFORE = frozenset({"hint", "context", "passage", "background", "premise"})
"""Words in the name of a column of what a question is about, as MMBench and ScienceQA have it beside the question."""
LETTERED = re.compile(r"(?:(?:choice|option|opt)s?[ _-]?)([a-h])", re.IGNORECASE)
"""The name of a column with one choice, by its letter."""
LISTED = ("caption", "captions", "descriptions", "reference_strs", "sentences.raw", "alt_text")
"""Names of columns that may hold several captions of one image, as sets of COCO and Flickr30k do."""
LICENCES = ("licence", "license", "rights")

ABOUT = frozenset(
    {
        *("id", "ids", "uid", "type", "kind", "category", "source", "lang", "language", "index", "idx", "number", "nr"),
        *("count", "length", "len", "level", "score", "rating", "time", "date", "author", "format", "file", "path"),
    }
)
"""Words in the name of a column that holds something about a question or an answer, and not one."""

NAMES = frozenset({"id", "ids", "uid", "uuid", "guid", "key", "index", "idx", "sha", "md", "hash", "file", "path"})
"""Words in the name of a column that names its row or a file."""

BESIDE = NAMES | {"lang", "language", "locale", "split"}
"""These, and words in the name of a column that says something of a text, and is none."""


def split_words(column: str) -> list[str]:
    """The words of a name such as `user_question` or `modelAnswer`, in small letters."""
    return [word.lower() for word in WORD.findall(column)]
