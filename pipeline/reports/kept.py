"""What a build kept of each source, and whether that is what was expected of it.

It is said at the end, whatever phase the build stopped at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich import box
from rich.table import Table

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.shown import count_things, describe_more
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.engine.chain import read_totals
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.consequences import Causes, select_causes, spread_losses
from vlmill.pipeline.reports.funnel import format_share
from vlmill.pipeline.reports.refused import read_refused_rows
from vlmill.pipeline.steps.retry_images import NOT_HAD

USUAL = 0.5
"""The share of a source's samples below which a build warns where the recipe expects nothing."""
SHOWN = 3
"""Reasons in a line."""


@dataclass(frozen=True, slots=True)
class KeptOfSource:
    """One source: the outcome of its rows."""

    source: str
    rows: int
    pages: int  # that they fan out to; a row that is lost as a whole counts as one
    samples: Count  # of these pages: which are kept as samples, and why the others are not; without what was taken down
    files: Count  # places where an image is shown whose file was not had, by reason; of sources that open files
    images: Count  # places where an image is shown, of sources whose images are addresses; else none
    skipped: int  # bad input files
    expected: float | None  # the share that the recipe expects; None where it says nothing
    taken_down: int = 0  # pages that are neither
    causes: Causes = field(default_factory=dict)  # what is behind losses that follow from others
    hosts: tuple[str, ...] = ()  # in private networks, that its fetch block allows
    refused: str = (
        ""  # where nothing was kept, the first row that was lost for the main reason, and what was said of it
    )

    @property
    def unit(self) -> str:
        """What shares of it are of."""
        return "rows" if self.rows == self.pages else "pages"

    @property
    def share(self) -> float:
        """Kept of what came; 1 of nothing."""
        return self.samples.kept / self.samples.came if self.samples.came else 1.0

    @property
    def short(self) -> bool:
        """Whether less was kept than may be: than was expected, or nothing."""
        return self.share < self.expected if self.expected is not None else not self.share

    @property
    def little(self) -> bool:
        """Whether it is worth a warning."""
        return self.short or (self.expected is None and self.share < USUAL)

    @property
    def why(self) -> list[tuple[Reason, int]]:
        """What lost samples, the most first; of one that fell with another thing, what lost that."""
        return _sort_reasons(spread_losses(self.samples.lost, self.causes))

    @property
    def not_had(self) -> list[tuple[Reason, int]]:
        """Why images failed, the most first, where so many did that it is worth a warning; a web document stays."""
        failed = [(why, number) for why, number in _sort_reasons(self.images.lost) if why.failed]
        return failed if sum(number for _, number in failed) > (1 - USUAL) * self.images.came else []

    def reasons(self) -> str:
        """The reasons that lost most, in words."""
        return _name_reasons(self.why)

    @property
    def apart(self) -> str:
        """What was taken down, of which no share is counted; nothing where nothing was."""
        return f"{self.taken_down:,} taken down, in no share" if self.taken_down else ""


def _sort_reasons(lost: Mapping[Reason, int]) -> list[tuple[Reason, int]]:
    """What lost something, the most first."""
    return sorted(((why, number) for why, number in lost.items() if number), key=lambda item: (-item[1], item[0]))


def _name_reasons(why: Sequence[tuple[Reason, int]]) -> str:
    """The first of these, in words."""
    shown = ", ".join(f"{reason} {number:,}" for reason, number in why[:SHOWN])
    return shown + describe_more(len(why) - SHOWN, "reason")


def count_kept(root: Path, recipe: Recipe, folders: dict[str, str]) -> list[KeptOfSource]:
    """What was kept of each source.

    Args:
        root: The run's folder.
        recipe: As it was built, with what it expects.
        folders: Source -> the folder of the step that applied its samples last.
    """
    found = []
    for source in sorted(recipe.sources):
        read = read_totals(root, f"steps/{source}/read")
        outcome = read_totals(root, folders[source])
        lost = read["pages"].lost + outcome["samples"].lost
        taken_down = lost.pop(Reason.TAKEN_DOWN, 0)
        wanted = read["pages"].came - taken_down  # which is not expected
        samples = Count(wanted, outcome["samples"].kept, lost)
        files = Count(lost=Counter({why: outcome["images"].lost[why] for why in (*NOT_HAD, Reason.UNSUPPORTED_MEDIA)}))
        opens, fetches = recipe.source(source).opens, recipe.source(source).fetches
        images = outcome["images"] if fetches else Count()
        rows, pages = read["rows"].came, read["pages"].came
        bad = read_totals(root, f"steps/{source}/survey")["files"].lost[Reason.BAD_FILE]
        had = files if opens else Count()
        expected, causes = recipe.expected(source), select_causes(outcome)
        hosts = recipe.fetch_step(source).allow_hosts
        one = KeptOfSource(source, rows, pages, samples, had, images, bad, expected, taken_down, causes, hosts)
        found.append(one if samples.kept or not one.why else replace(one, refused=_quote_refused(root, recipe, one)))
    return found


def _quote_refused(root: Path, recipe: Recipe, one: KeptOfSource) -> str:
    """The first row or page that no sample was made of for the main reason; empty where samples were lost later."""
    main = one.why[0][0]
    if main not in read_totals(root, f"steps/{one.source}/read")["pages"].lost:
        return ""
    rows = read_refused_rows(root, recipe, one.source)
    return next((f"{row.id}: {row.detail}" for row in rows if row.reason is main and row.detail), "")


def make_kept_table(found: Sequence[KeptOfSource]) -> Table:
    """A line for each source."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    made.add_column("kept of")
    paged = any(one.unit == "pages" for one in found)
    for name in ("rows", *(("pages",) if paged else ()), "samples", "of pages" if paged else "of rows"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("lost most for", overflow="fold")
    for one in found:
        pages = (f"{one.pages:,}",) if paged else ()
        kept = format_share(one.samples.kept, one.samples.came)
        made.add_row(
            one.source,
            f"{one.rows:,}",
            *pages,
            f"{one.samples.kept:,}",
            kept,
            "; ".join(filter(None, (one.reasons(), one.apart))),
        )
    return made


def list_kept_warnings(found: Sequence[KeptOfSource], shown: Path) -> Iterator[str]:
    """A line, with the next command, for each source of which little was kept, or files or images were not had.

    `shown` is the run's folder.
    """
    for one in found:
        if one.little and not one.short:
            yield f"warning: {_describe_kept(one, shown)}"
        if one.skipped:
            yield (
                f"warning: {one.source}: bad input files were skipped, {one.skipped:,} in all "
                f"({_make_command(one, shown, Reason.BAD_FILE)}); the shares above count the rows of the others"
            )
        if media := one.files.lost[Reason.UNSUPPORTED_MEDIA]:
            images = "image" if media == 1 else "images"
            yield (
                f"warning: {one.source}: {media:,} {images} lost that its kind does not read, as it opens files: "
                f"{_make_command(one, shown, Reason.UNSUPPORTED_MEDIA)}"
            )
        if why := [(reason, number) for reason, number in _sort_reasons(one.files.lost) if reason in NOT_HAD]:
            total = sum(number for _, number in why)
            outside = Reason.FORBIDDEN_ADDRESS in dict(why)
            absolute = " (forbidden_address: absolute, or out of that folder)" if outside else ""
            yield (
                f"warning: {one.source}: {count_things(total, 'image')} lost, since their own files or those of other "
                f"images of the same sample are not under `images`{absolute} ({_name_reasons(why)}): "
                f"{_make_command(one, shown, why[0][0])}; "
                f"put files there or --set sources.{one.source}.images=FOLDER, then build with --retry-failed"
            )
        if one.not_had:
            yield f"warning: {_describe_failed(one, shown)}"
        if late := one.images.lost[Reason.NOT_FETCHED]:
            yield (
                f"warning: {one.source}: {late:,} images of samples that are kept were not fetched, since filters "
                f"dropped these before (fetch.after; {_make_command(one, shown, Reason.NOT_FETCHED)}); the same build "
                "with --retry-failed fetches them"
            )


def explain_shortfall(found: Sequence[KeptOfSource], shown: Path) -> str:
    """Why the build is not what was expected; nothing where it is."""
    return "\n".join(_describe_kept(one, shown) for one in found if one.short)


def _describe_kept(one: KeptOfSource, shown: Path) -> str:
    """How much was kept, why not more, and what to ask next."""
    bound = f", expected are {one.expected:.1%}" if one.expected is not None else ""
    why = f" ({one.reasons()}): {_make_command(one, shown, one.why[0][0])}" if one.why else ""
    first = f"; the first is {one.refused}" if one.refused else ""
    kept_of = f"{one.samples.kept:,} of {one.samples.came:,} {one.unit} as samples"
    return f"{one.source}: kept {kept_of}, {format_share(one.samples.kept, one.samples.came)}{bound}{why}{first}"


def _describe_failed(one: KeptOfSource, shown: Path) -> str:
    """How many images could not be fetched, why, and what to do about the main reason."""
    failed, main = sum(number for _, number in one.not_had), one.not_had[0][0]
    advice = (
        "; a host in a private network is asked only if allow_hosts of the source's fetch block names it: "
        f"--set 'sources.{one.source}.fetch.allow_hosts=[{', '.join([*one.hosts, 'HOST'])}]' --accept-changes"
        if main is Reason.FORBIDDEN_ADDRESS
        else ""
    )
    said = f"{failed:,} of {one.images.came:,} images could not be had ({_name_reasons(one.not_had)})"
    return f"{one.source}: {said}: {_make_command(one, shown, main)}{advice}"


def _make_command(one: KeptOfSource, shown: Path, reason: Reason) -> str:
    return f"vlmill report {shown} --source {one.source} --reason {reason}"
