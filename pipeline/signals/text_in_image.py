"""Signal `text_in_image`: how much text is in a picture, what it says, and whether it is Chinese.

Text is found and read by RapidOCR (https://github.com/RapidAI/RapidOCR, Apache-2.0), whose package carries the models
PP-OCRv6 of PaddleOCR: Chinese, Japanese, and languages in Latin letters. The language filter reads what was recognised,
as it reads the texts of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.detections import Detection
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample, SampleId
from vlmill.pipeline.filters.base import Undecided
from vlmill.pipeline.filters.language.filter import Language
from vlmill.pipeline.filters.language.prose import CJK
from vlmill.pipeline.filters.language.script import HAN
from vlmill.pipeline.signals.detector import ImageDetector, make_detection, measure_covered, pad_picture
from vlmill.pipeline.signals.published import list_versions

MOST_TEXT = 4096
"""Characters that are stored of one image; all are counted."""

LEAST_SIDE, MOST_RATIO = 32, 8
"""Of a picture that is read: RapidOCR enlarges thinner ones without a bound, 1 x 1280 px to 1.4 million pixels a side.
They are padded with white instead."""

LEGIBLE = 0.8
"""Confidence of a line from which on it tells the language. Hangul is read as Han characters with less: of 25 pictures
of Korean pages 3 would be called Chinese, with 0.5. Of 90 of Chinese pages 44 are, with both."""

LEAST_CHINESE = 4
"""Characters of Chinese, Japanese or Korean in a picture from which on it may be called Chinese: a stray sign is often
read as 口 or 一."""


@dataclass(frozen=True, config=STRICT)
class TextInImage(ImageDetector):
    """Area, lines and characters of the text in an image, and its language. Each line is a detection with its text.

    Values: `area`, the share of the picture that text covers; `lines`; `characters` without blanks; `han`, the share of
    its letters that are Han characters; `chinese`, the share of its words in lines that the language filter drops as
    Chinese; both of the lines that are legible and stored. Without text all are 0.
    """

    kind: ClassVar[str] = "text_in_image"
    version: ClassVar[int] = 1
    values: ClassVar[tuple[str, ...]] = ("area", "lines", "characters", "han", "chinese")

    def made_by(self) -> Mapping[str, str]:
        """The packages that read, with the models in them, and what the language filter goes by."""
        packages = ("rapidocr", "onnxruntime", "opencv-python-headless", "pyclipper", "shapely")
        return {**list_versions(*packages), **Language().made_by()}

    def load(self) -> Any:
        """The reader.

        Raises:
            RecipeError: a GPU is asked for: onnxruntime's GPU package is not what RapidOCR is installed with.
        """
        if self.resources.gpus:
            raise RecipeError("resources.gpus: text_in_image reads on CPUs; take 0, and more workers or cpus")
        from rapidocr import RapidOCR  # noqa: PLC0415 - only where a picture is read

        runtime = {f"EngineConfig.onnxruntime.{name}_op_num_threads": self.threads for name in ("intra", "inter")}
        size = {"Global.max_side_len": self.longest, "Det.limit_type": "max", "Det.limit_side_len": self.longest}
        return RapidOCR(params={"Global.log_level": "critical", **runtime, **size})

    def look(self, model: Any, picture: np.ndarray) -> tuple[Sequence[float], Sequence[Detection]]:
        """The values of a picture, and its lines in reading order."""
        least = max(LEAST_SIDE, -(-max(picture.shape) // MOST_RATIO))
        read = model(pad_picture(picture, least)[..., ::-1])
        boxes = [[(x, y) for x, y in box.tolist()] for box in read.boxes] if read.boxes is not None else []
        lines, detections, stored = list(read.txts or ()), list[Detection](), 0
        for box, line, score in zip(boxes, lines, read.scores or (), strict=True):
            kept = line[: max(0, MOST_TEXT - stored)]
            detections.append(make_detection(box, picture, float(score), kept))
            stored += len(kept)
        area, legible = measure_covered(boxes, picture), [one.text for one in detections if one.confidence >= LEGIBLE]
        characters = sum(not letter.isspace() for line in lines for letter in line)
        return (area, len(lines), characters, measure_han(legible), measure_chinese(legible)), detections


def measure_han(lines: Sequence[str]) -> float:
    """The share of letters that are Han characters; 0 without letters. Pure."""
    letters = [letter for line in lines for letter in line if letter.isalpha()]
    return sum(HAN.match(letter) is not None for letter in letters) / len(letters) if letters else 0.0


def measure_chinese(lines: Sequence[str]) -> float:
    """The share of words in lines that are Chinese, by the language filter with the lines as paragraphs of a page.

    0 where there is too little text to say. Pure.
    """
    if sum(len(run) for line in lines for run in CJK.findall(line)) < LEAST_CHINESE:
        return 0.0
    page = Sample(SampleId("", "", 0), tuple(Node("text", text=line) for line in lines))
    findings = Language(sample_share=1e-9).decide([(0, page)], ())  # so that the share of the page is told
    whole = [found for found in findings if not isinstance(found, Undecided) and found.node == WHOLE_SAMPLE]
    return whole[0].score if whole else 0.0
