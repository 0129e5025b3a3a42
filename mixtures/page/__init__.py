"""`vlmill stats --html`: a run's mixtures as one page, with plots, and samples as the trainer sees them.

    counts    shards, plans and receipts -> histograms and matrices
    embedding_map  vectors -> points in two dimensions, and examples of clusters
    plots     those -> Vega-Lite, drawn by the page itself
    sample_facts  turns, licences, hosts and ratings of samples as they came in
    gallery   a few segments of every stage, chosen by hash: tiles, neighbours in their sequence, what is supervised
    search    up to 20,000 samples of the run, chosen by hash, with language and reason, to be searched in the page

    missing   what a run does not have (yet), and how to get it

The page is a function of the run's files, and is made at any time from the first phase of a build on. What it shows a
part of, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

import vl_convert
from markupsafe import Markup

from vlmill.mixtures.build import is_mixed, read_stats
from vlmill.mixtures.page import counts, embedding_map, gallery, missing, plots, sample_facts, search, signal_plots
from vlmill.mixtures.reader import PlannedMixture
from vlmill.mixtures.report.grouped import group_notes
from vlmill.mixtures.report.stats import format_epochs, shorten_number
from vlmill.mixtures.steps.repetition import summarise_repetition
from vlmill.pipeline.chat.encode import Loss
from vlmill.pipeline.chat.settings import find_format
from vlmill.pipeline.core.errors import NotBuiltError
from vlmill.pipeline.page import escape_script, render_page
from vlmill.pipeline.page.colours import choose_colours
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.recipe.schema import Recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.signals import SignalCounts, read_signals

SAMPLES = 20_000
"""That can be searched."""


def render_mixture_page(
    root: Path,
    stage: str | None,
    losses: Mapping[str, Loss],
    shares: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    samples: int = SAMPLES,
) -> str:
    """The page of one stage, or of all.

    Args:
        root: the run's folder.
        stage: one of the recipe's, or None.
        losses: what each stage learns; of one without a `train` block, which is not in it, the answers are marked.
        shares: what share of the loss each source of a stage has, where the loss is weighed.
        samples: that can be searched, at most.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: the stage asked for is not mixed yet; of all stages, those are left out.
    """
    recipe, stats = read_locked_recipe(root), dict[str, Any]()
    for name in [item.name for item in recipe.stages if is_mixed(root, item.name)] if stage is None else [stage]:
        stats |= read_stats(root, name)
        stats[name]["loss_shares"] = shares.get(name, {})
    mixtures = {name: PlannedMixture(root, name) for name in stats}
    policies = [item.policy for item in recipe.stages if item.name in stats] or list(recipe.policies)
    colours = choose_colours(recipe.list_groups())
    maps = embedding_map.read_maps(root, recipe)
    facts, measured = sample_facts.SampleFacts(), _list_measured_policies(root, recipe, policies)
    index = search.index_samples(root, recipe, measured, samples, facts.add_sample)
    stacks = [
        gallery.make_cards(mixture, losses.get(name, "answers"), recipe.seed) for name, mixture in mixtures.items()
    ]
    cards = [card for turn in zip_longest(*stacks) for card in turn if card is not None]
    return render_page(
        __name__,
        "page.html.jinja",
        name=recipe.name,
        stages=[_describe_stage(root, stats[name], mixtures[name], colours) for name in stats],
        missing=[
            *missing.list_unbuilt(root),
            *missing.list_missing(root, recipe, [*stats] if stage else None, losses),
        ],
        sources=missing.list_sources(root, recipe),
        plots=plots.plot_run(
            read_funnel(root),
            search.count_languages(index),
            counts.count_overlap(root, recipe),
            colours,
        )
        + sample_facts.plot_facts(facts, {source: colours[source] for source in sorted(recipe.sources)})
        + signal_plots.plot_signals(_read_signals(root, recipe), colours)
        + signal_plots.plot_maps(maps, colours),
        maps=maps,
        data={
            "index": index,
            "cards": cards,
            "colours": colours,
            "marks": list(find_format(recipe.chat).specials),
        },
        searchable=len(index["rows"]["source"]),
        samples=sum(search.count_source_samples(root, recipe).values()),
        vega=_bundle_vega(),
        short=shorten_number,
    )


def _read_signals(root: Path, recipe: Recipe) -> Sequence[SignalCounts]:
    """What the run's signals say, once they are through."""
    try:
        return read_signals(root) if recipe.signals else ()
    except NotBuiltError:
        return ()


@cache
def _bundle_vega() -> Markup:
    """What draws the plots, as a script. Bundling it takes seconds."""
    return escape_script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _list_measured_policies(root: Path, recipe: Recipe, policies: Sequence[str]) -> list[str]:
    """Policies under which the tokens of any source are counted."""
    return [
        policy
        for policy in sorted(set(policies))
        if any((root / f"shards/{source}/{policy}/lengths/manifest.json").exists() for source in recipe.sources)
    ]


def _describe_stage(
    root: Path, stats: Mapping[str, Any], mixture: PlannedMixture, colours: Mapping[str, str]
) -> dict[str, Any]:
    """A stage as the template shows it."""
    counted = counts.count_stage(root, mixture)
    return {
        "stats": stats,
        "epochs": format_epochs(stats),
        "notes": group_notes(stats["notes"]),
        "repetition": summarise_repetition(stats["repetition"]),
        "plots": plots.plot_stage(stats, counted, colours),
        "shards": counted.shards,
    }
