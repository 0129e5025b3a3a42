"""Decontamination: what of the training data stands in evaluation sets, as a report or as verdicts.

    index           once            items of all benchmarks: pictures with their places, questions with their n-grams
    contamination   per partition   findings: the nodes that show a benchmark's picture or ask its question
    decontaminate   per partition   the findings as verdicts, if the recipe says `action: drop`

Findings do not depend on the action, and a sample's findings on that sample and the benchmarks alone.

What counts, and why so much is needed:

- A picture counts where it is a benchmark's as dedupe measures it (pipeline/dedupe/picture.py): recompressed, resized,
  cropped, in another frame or tone, with a caption or a watermark. FineVision's report takes near-duplicate images
  alone as contamination too; Idefics3's found 6.6 % of MathVista by image and 2.2 % by image and question.
- A question counts without its picture only where it is telling. Overlap is measured in runs of 8 words: PaLM's
  (Chowdhery et al., 2022, section 8) and Tulu 3's length (Lambert et al., 2024, section 3.2), who ask for 70 % of the
  n-grams and for 50 % of the words; GPT-3's (Brown et al., 2020, appendix C) are 8 to 13 words by benchmark. `text`
  says which share of its telling words has to be there.
- A question counts by its own words, so it is found whatever a copy has behind it: any of its choices, all in any
  order, or none. Only where they are not telling (under 8 words, or a template) does it count together with its
  choices, in their order.
- In total 13 words have to be there, GPT-3's longest n-gram, those of choices behind the question counted; or 8 and an
  answer beside them. They have to be there in one place: further apart than the question is long, they are another
  one's. Where training data asks the same of other pictures, an answer of two words or more, or 26 words: short and
  generic questions are asked of everything.
- A run of words that stands in items about more than 3 pictures of a benchmark is its template, and does not count
  (GPT-3 leaves out n-grams that more than 10 documents have). A picture that looks like more than 3 others of its
  benchmark counts as the same file alone.
- A word of a question may be another, missing or added, and one more for each further 16 words of it. Such a question
  is found by runs of 4 words (of 8 words with one changed 4 in a row are left), and laid beside the passage
  (`alignment.py`). Where it has fewer than 13 words, an answer or choices of two words or more have to stand beside it.
- A number that differs makes another question; so does a word that the benchmark itself varies: the slot of a template
  (`slots.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, KindOf, OneOf
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.decontaminate.contamination import FindContamination
from vlmill.pipeline.decontaminate.index import BuildIndex
from vlmill.pipeline.decontaminate.verdicts import Decontaminate
from vlmill.pipeline.dedupe.pairs import FLOORS
from vlmill.pipeline.sources import SOURCES, Source
from vlmill.pipeline.sources.options import add_kind

__all__ = ["Benchmark", "BuildIndex", "Decontaminate", "Decontamination", "FindContamination", "Split"]


HINT = (
    ". A benchmark is read by kinds of the package alone: write its questions as rows of kind evaluation, such as JSON "
    "Lines with question, answer, choices, and image as base64"
)


@dataclass(frozen=True)
class Split:
    """The files of a benchmark's split.

    They are those of a pattern, or those that a dataset on the Hub has in a subset's split.
    """

    pattern: str | None = None
    subset: str | None = None
    split: str | None = None


@dataclass(frozen=True, config=STRICT)
class Benchmark:
    """One evaluation set of a recipe."""

    files: str | Mapping[str, str] | None = None  # pattern below root; or split -> pattern
    subset: str | None = None  # in the place of files, of a dataset on the Hugging Face Hub: its configuration
    split: str | tuple[str, ...] | None = None  # in the place of files: its split, or several
    kind: Annotated[str, KindOf(SOURCES, HINT)] = "evaluation"  # a row shape that carries its images
    root: str = field(default=".", metadata=RUNTIME)  # folder (relative to the recipe), fsspec URL, hf://datasets/...
    options: Annotated[Source, OneOf(SOURCES)] = Field(
        default_factory=dict, validate_default=True
    )  # of the row shape: which columns hold what

    @field_validator("kind")
    @classmethod
    def _carries_images(cls, kind: str) -> str:
        if SOURCES[kind].fetches:
            raise ValueError(f"{kind!r} names addresses; a benchmark has to carry its images")
        return kind

    @field_validator("options", mode="before")
    @classmethod
    def _with_kind(cls, options: Any, info: ValidationInfo) -> Any:
        return add_kind(options, info.data.get("kind"))

    def splits(self, name: str) -> dict[str, Split]:
        """The files of each split, by the name that its items have.

        That is `mmmu.validation`, or `mmmu` where there are no splits.
        """
        if isinstance(self.files, str):
            return {name: Split(pattern=self.files)}
        if self.files is not None:
            return {f"{name}.{split}": Split(pattern=pattern) for split, pattern in self.files.items()}
        named = (self.split,) if isinstance(self.split, str) else self.split or ()
        return {f"{name}.{split}": Split(subset=self.subset, split=split) for split in named}


@dataclass(frozen=True, config=STRICT)
class Decontamination:
    """The recipe's decontaminate block."""

    against: Mapping[str, Benchmark]  # load() has put shipped lists in place of their names
    action: Literal["report", "drop"] = "report"  # whether what a benchmark holds is counted, or goes
    image: Annotated[float, Field(ge=FLOORS["image"], le=1)] = 0.97  # similarity from which pictures are the same
    mirror: bool = False  # whether a mirrored picture is the same
    text: Annotated[float, Field(ge=0.5, le=1)] = 0.8  # share of a question's telling words from which it is the same

    def index(self) -> BuildIndex:
        """The step over all benchmarks."""
        return BuildIndex(image=self.image)

    def contamination(self) -> FindContamination:
        """The step for each partition."""
        return FindContamination(image=self.image, text=self.text, mirror=self.mirror)
