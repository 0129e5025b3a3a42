"""Opt-out: drops what its owners do not want used, as named in lists that the recipe gives.

`pipeline/fetch/opt_outs.py` says what a list holds. What is in a list is in the key of the verdicts, so a new edition
of a list is applied by the next build, and makes anew only what it touches. What is listed before it was fetched is not
asked for in the first place.

The address of a document decides about the sample, that of an image about its node. Images are asked for the addresses
that the input file names, before mirrors. OBELICS took its list from Spawning's service, which answers addresses with
opt-outs (Laurencon et al. 2023, arXiv:2306.16527); write its answers to a file, and name that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Sample, Verdict
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.fetch.opt_outs import KINDS, OptOuts


@dataclass(frozen=True, config=STRICT)
class OptOut:
    """Drops samples and image nodes whose address, domain or content is in a list. Paths are relative to the recipe.

    Attributes:
        urls: files that list addresses.
        domains: files that list domains.
        sha256: files that list the sha256 of images.
    """

    name: ClassVar[str] = "opt_out"
    version: ClassVar[int] = 2

    urls: tuple[str, ...] = field(default=(), metadata=RUNTIME)  # their content is in the key
    domains: tuple[str, ...] = field(default=(), metadata=RUNTIME)
    sha256: tuple[str, ...] = field(default=(), metadata=RUNTIME)

    def __post_init__(self) -> None:
        """Refuse a filter that nothing could ever fall under. Pydantic turns ValueError into an error of the recipe."""
        if not any(getattr(self, kind) for kind in KINDS):
            raise ValueError(
                f"names no list; give it files, such as {{domains: [domains.txt]}}; allowed: {', '.join(KINDS)}"
            )

    @property
    def image_stats(self) -> tuple[str, ...]:
        """The digests of images, if there is a list of any."""
        return ("sha256",) if self.sha256 else ()

    @property
    def lists(self) -> Mapping[str, str]:
        """Its files, under names that say what they list."""
        return {
            f"{self.name}.{kind}.{place}.list": path for kind in KINDS for place, path in enumerate(getattr(self, kind))
        }

    def opened(self, paths: Mapping[str, Path]) -> OptOut:
        """The same filter with its files in these places."""
        return OptOut(**{kind: tuple(str(paths[name]) for name in self.lists if f".{kind}." in name) for kind in KINDS})

    def made_by(self) -> Mapping[str, str]:
        """Nothing but our own code."""
        return {}

    def decide(self, samples: Iterable[tuple[int, Sample]], image_stats: Sequence[ImageStats]) -> Iterator[Verdict]:
        """Verdicts on samples and on image nodes.

        Raises:
            RecipeError: an entry of a list is none; the message names file and line.
        """
        lists = OptOuts.read({kind: [Path(path) for path in getattr(self, kind)] for kind in KINDS})
        for row, sample in samples:
            if lists.names(sample.url):
                yield Verdict(row, WHOLE_SAMPLE, self.name, Reason.OPT_OUT_LIST)
                continue
            for index, node in enumerate(sample.nodes):
                if node.image is not None and (
                    lists.names(node.url) or (lists.sha256 and image_stats[node.image].sha256 in lists.sha256)
                ):
                    yield Verdict(row, index, self.name, Reason.OPT_OUT_LIST)
