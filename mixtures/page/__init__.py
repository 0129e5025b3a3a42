"""`vlmill stats --html`: a run's mixtures as one page, with plots, and samples as the trainer sees them.

    counts    shards, plans and receipts -> histograms and matrices
    plots     those -> Vega-Lite, drawn by the page itself
    gallery   a few segments of every stage, chosen by hash: tiles drawn, neighbours in their row, what is learnt
    search    up to 20,000 samples of the run, chosen by hash, with language and reason, to be searched in the page

The page is a function of the run's files. What it shows a part of, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import vl_convert

from mixtures.build import read_stats
from mixtures.locked import Mixture
from mixtures.page import counts, gallery, plots, search
from mixtures.repetition import summary
from mixtures.stats import epochs, short
from pipeline.encode import Loss
from pipeline.page import render, script
from pipeline.recipe import locked_recipe
from pipeline.reports.ledger import funnel

SAMPLES = 20_000
"""That can be searched."""


def page(root: Path, stage: str | None, losses: Mapping[str, Loss], samples: int = SAMPLES) -> str:
    """The page of one stage, or of all.

    Args:
        root: the run's folder.
        stage: one of the recipe's, or None.
        losses: what each stage learns.
        samples: that can be searched, at most.

    Raises:
        RecipeError: the recipe has no such stage.
        StoreError: a stage is not mixed yet.
    """
    recipe, stats = locked_recipe(root), read_stats(root, stage)
    mixtures = {name: Mixture(root, name) for name in stats}
    policies = {name: next(item.policy for item in recipe.stages if item.name == name) for name in stats}
    colours = plots.colours(list(recipe.sources))
    index = search.index(root, recipe, sorted(set(policies.values())), samples)
    stacks = [gallery.cards(mixture, losses[name], recipe.seed) for name, mixture in mixtures.items()]
    cards = [card for turn in zip_longest(*stacks) for card in turn if card is not None]
    return render(
        __name__,
        "page.html.jinja",
        name=recipe.name,
        stages=[_stage(root, stats[name], mixtures[name], colours) for name in stats],
        plots=plots.of_run(funnel(root), search.languages(index), counts.overlap(root, recipe, policies), colours),
        data={
            "index": index,
            "cards": cards,
            "colours": colours,
            "marks": list(next(iter(mixtures.values())).chat.specials),
        },
        searchable=len(index["rows"]["source"]),
        samples=sum(line["samples"]["in"] for line in funnel(root).values() if "samples" in line),
        vega=script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
        short=short,
    )


def _stage(root: Path, stats: Mapping[str, Any], mixture: Mixture, colours: Mapping[str, str]) -> dict[str, Any]:
    """A stage as the template shows it."""
    counted = counts.of_stage(root, mixture)
    return {
        "stats": stats,
        "epochs": epochs(stats),
        "repetition": summary(stats["repetition"]),
        "plots": plots.of_stage(stats, counted, colours),
        "shards": counted.shards,
    }
