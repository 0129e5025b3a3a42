"""Complete recipes made small: the same stages, mixtures and image policies, for stand-ins and towers of a few units.

A complete recipe has stages and reads datasets from the Hub. `shrink_recipe` keeps what decides which samples a stage
sees (sources, filters, entries with their shares, repeats, `take` and `where`) and how it trains (what is frozen,
adapters, loss, noise), and replaces what costs time: towers, sides of images, lengths, batches and numbers of steps.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.hub import Hub
from tests.helpers.small import vlmill
from tests.helpers.stages import write_tokenizer
from tests.helpers.standins import fill_hub, write_standins
from tests.helpers.standins.serve import list_datasets, list_settings
from vlmill.mixtures.config import MixtureEntry
from vlmill.mixtures.published.catalogue import load_published
from vlmill.pipeline.recipe.load import EffectiveRecipe, compose_recipe, load_recipe
from vlmill.pipeline.recipe.schema import Recipe

LENGTH = 1024
"""Tokens of a packed sequence, in the place of the recipe's longest."""
LOCAL = {
    "camel_ai_math": ("camel-ai/math", "math.jsonl"),
    "lrv_instruction": ("FuxiaoLiu/LRV-Instruction", "*.json"),
}
"""Sources of files that people have to make of a dataset: the dataset, and what its stand-in has in their place."""
TEXT_KINDS = ("mistral", "qwen2", "phi3", "llama")
VISION_KINDS = ("siglip", "clip", "dinov2")


def list_complete_recipes() -> list[str]:
    """The shipped recipes that have stages, of their own or of one that they include, and read the Hub."""
    names = [path.stem for path in sorted(Path(str(files("vlmill.recipes"))).glob("*.yaml"))]
    return [name for name in names if not name.startswith("quickstart") and _is_complete(name)]


def _is_complete(name: str) -> bool:
    block = _read_file(name)
    others = [other for other in _list_included(block) if not other.startswith("presets/")]
    return bool(others) and ("stages" in block or any(map(_is_complete, others)))


def _read_file(name: str) -> dict[str, Any]:
    """What stands in the file of a shipped recipe or fragment, without what it includes."""
    text = (Path(str(files("vlmill.recipes"))) / f"{name}.yaml").read_text(encoding="utf-8")
    block: dict[str, Any] = yaml.safe_load(text)
    return block


def _list_included(block: Mapping[str, Any]) -> list[str]:
    return [entry["recipe"] for entry in block.get("include", ())]


@cache
def compose_complete(name: str) -> EffectiveRecipe:
    """A complete recipe with all that it includes. Nothing outside of this machine is asked."""
    return compose_recipe(name)


# -- what was published of a stage


@dataclass(frozen=True)
class PublishedEntry:
    """An entry of a published mixture, as a recipe maps it."""

    entry: MixtureEntry
    amount: float | None  # of the mixture's unit, in all there is upstream; None where no count was published


def read_published(name: str) -> dict[str, dict[str, PublishedEntry]]:
    """Stage -> our label -> published entry, of the stages for which a recipe's file names a published mixture.

    Read from the files themselves, beside the code that composes recipes. One without stages includes another's.
    """
    block = _read_file(name)
    if "stages" not in block:
        (other,) = filter(_is_complete, _list_included(block))
        replaced = {key.split(".")[1] for key in block["replace"] if re.fullmatch(r"stages\.\w+\.mixture", key)}
        return {stage: entries for stage, entries in read_published(other).items() if stage not in replaced}
    return {
        stage["name"]: dict(_map_entries(stage["mixture"]))
        for stage in block["stages"]
        if "published" in stage["mixture"]
    }


def _map_entries(use: Mapping[str, Any]) -> Iterator[tuple[str, PublishedEntry]]:
    published, _, part = use["published"].partition("/")
    stage, sources = load_published(published).stages[part], use.get("sources", {})
    seen = Counter[str]()
    for label, entry in zip(stage.mixture.labels(), stage.mixture.resolved(), strict=True):
        if label in use.get("without", ()):
            continue
        ours = sources.get(label) or sources["*"].replace("*", entry.source)
        seen[ours] += 1
        known = stage.published.get(label)
        amount = known.totals(entry)[stage.mixture.unit] if known else None
        yield ours if seen[ours] == 1 else f"{ours}@{seen[ours]}", PublishedEntry(entry, amount)


# -- which entries of a mixture

FEWEST = 0.1
"""Of entries that are repeated less often, a few rows come to less than a sample."""
NEAR = 3
"""Sources of which so many times more or less was published than of the median one are not among the few."""


def pick_entries(mixture: Mapping[str, Any], published: Mapping[str, PublishedEntry], most: int | None) -> list[Any]:
    """At most so many entries of a stage's mixture, in the long form: spread evenly over those of similar size."""
    entries = _list_entries(mixture)
    if most is None or len(entries) <= most:
        return entries
    once = list({entry["source"]: entry for entry in reversed(entries)}.values())[::-1]
    often = [entry for entry in once if entry.get("repeat", 1) >= FEWEST]
    amounts = {entry["source"]: published[entry["source"]].amount for entry in often if entry["source"] in published}
    known = sorted(amount for amount in amounts.values() if amount)
    if known:
        middle = known[len(known) // 2]
        often = [entry for entry in often if middle / NEAR <= (amounts.get(entry["source"]) or 0) <= middle * NEAR]
    return [often[place] for place in spread_evenly(len(often), most)]


def spread_evenly(count: int, most: int) -> list[int]:
    """At most so many places in a list of `count` items, its ends among them."""
    return (
        sorted({round(place * (count - 1) / (most - 1)) for place in range(most)}) if count > most else [*range(count)]
    )


def _list_entries(mixture: Mapping[str, Any]) -> list[dict[str, Any]]:
    for form, key in (("shares", "share"), ("repeat", "repeat")):
        if mixture.get(form):
            return [{"source": name, key: value} for name, value in mixture[form].items()]
    entries = mixture["entries"]
    if isinstance(entries, dict):
        long = {name: item if isinstance(item, dict) else {"share": item} for name, item in entries.items()}
        return [{"source": name, **item} for name, item in long.items()]
    return [dict(entry) for entry in entries]


MOST = 5
"""Times the usual number of rows that a stand-in has at most, since amounts differ by orders of magnitude."""
SAMPLE = 12
"""Rows of a stand-in whose answers are measured."""


def choose_rows(
    recipe: Recipe, published: Mapping[str, Mapping[str, PublishedEntry]], usual: int, folder: Path
) -> dict[str, int]:
    """Rows of stand-ins with which repeats come to the published shares; dataset -> rows, `usual` for a median amount.

    Where a mixture counts tokens of answers, rows of long answers are fewer. `folder` gets a few rows of each.
    """
    rows = dict[str, int]()
    for stage in recipe.stages:
        known = published.get(stage.name, {})
        entries = {entry["source"]: known.get(entry["source"]) for entry in stage.mixture["entries"]}
        wanted = dict[str, float]()
        for name, found in entries.items():
            if found and found.entry.share is None and found.amount and name in recipe.sources:
                names = list_datasets(replace(recipe, sources={name: recipe.sources[name]})) or [LOCAL[name][0]]
                supervised = stage.mixture.get("unit") == "supervised"
                length = measure_answers(recipe, name, names[0], folder) if supervised else 1
                wanted |= dict.fromkeys(names, found.amount / length / len(names))
        middle = sorted(wanted.values())[len(wanted) // 2] if wanted else 0
        parts = {dataset: min(MOST, max(1 / MOST, amount / middle)) for dataset, amount in wanted.items()}
        rows |= {dataset: max(2, round(usual * part)) for dataset, part in parts.items()}
    return rows


def measure_answers(recipe: Recipe, name: str, dataset: str, folder: Path) -> float:
    """Characters of answers in a row that the language filter keeps, as a source's stand-in has them on average."""
    (standin,) = write_standins(folder / name, [dataset], SAMPLE, odd=False).values()
    source, settings = recipe.source(name), recipe.sources[name]
    file = standin.root / next(
        file for file in sorted(standin.files) if not settings.files or fnmatchcase(file, settings.files)
    )
    read = [row.pages[0].nodes for row in source.rows(file, range(len(source.survey(file))))]
    texts = ["".join(node.text or "" for node in nodes if node.supervised) for nodes in read]
    kept = [len(text) for text in texts if text.isascii()]
    return sum(kept) / len(kept)


# -- the recipe made small


def shrink_recipe(
    data: Mapping[str, Any], published: Mapping[str, Mapping[str, PublishedEntry]], most: int | None
) -> dict[str, Any]:
    """The mapping of a small recipe.

    Args:
        data: an effective recipe's mapping.
        published: of each stage, see `read_published`.
        most: entries of each mixture that are kept; None for all.
    """
    small = {key: copy.deepcopy(value) for key, value in data.items() if key not in ("decontaminate", "partition")}
    small["policies"] = {name: _shrink_policy(policy) for name, policy in data["policies"].items()}
    small["filters"] = [_shrink_filter(filter_) for filter_ in data.get("filters", ())]
    small["stages"] = [_shrink_stage(stage, published.get(stage["name"], {}), most) for stage in data["stages"]]
    wanted = {entry["source"] for stage in small["stages"] for entry in stage["mixture"]["entries"]}
    kept = {name for entry in wanted for name in _pick_members(small["sources"], entry, most)}
    small["sources"] = {name: source for name, source in small["sources"].items() if name in kept}
    first = small["policies"][small["stages"][0]["policy"]]
    small["model"] = _shrink_model(data["model"], first.get("side", first.get("shortest")), first.get("patch", 14))
    return {**small, "tokenizer": "tokenizer.json", "partition": {"rows": 1000}}


def _pick_members(sources: Mapping[str, Any], entry: str, most: int | None) -> list[str]:
    """The sources that an entry means: itself, or at most so many of its group."""
    if entry in sources:
        return [entry]
    found = [name for name, source in sources.items() if source.get("group") == entry or fnmatchcase(name, entry)]
    return found if most is None else [found[place] for place in spread_evenly(len(found), most)]


def _shrink_filter(filter_: Mapping[str, Any]) -> dict[str, Any]:
    """The same filter for stand-ins, whose pictures and texts are small: no bounds of sides, words and repetition."""
    ((name, settings),) = filter_.items()
    made = dict(settings or {})
    if name == "shape":
        made["min_side"] = 8
        made["by_source"] = {source: {**its, "min_side": 8} for source, its in made.get("by_source", {}).items()}
    for level in {"node", "sample"} & made.keys():
        made[level] = {key: value for key, value in made[level].items() if "words" not in key and "repet" not in key}
    return {name: made}


def _shrink_policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The same policy for images of some 60 pixels. Grids and the ratio of sides to a tile stay."""
    kind, made = policy["kind"], dict(policy)
    if kind == "navit":
        times = policy.get("longest", 980) / policy.get("shortest", 378)
        return {**made, "shortest": 28, "longest": max(28, 14 * round(2 * times)), "latents": 4}
    patch = 7 if kind in ("tiles", "internvl") else 14
    side = 2 * patch * (policy.get("shuffle", 2) if patch == 7 else 1)
    made |= {"side": side, "patch": patch}
    if kind == "tiles":
        made["longest"] = side * round(policy.get("longest", 1456) / policy.get("side", 364))
    if kind == "anyres" and "pinpoints" in policy:
        was = policy.get("side", 336)
        made["pinpoints"] = [[side * length // was for length in grid] for grid in policy["pinpoints"]]
    return made


def _shrink_stage(
    stage: Mapping[str, Any], published: Mapping[str, PublishedEntry], most: int | None
) -> dict[str, Any]:
    mixture, train = dict(stage["mixture"]), dict(stage["train"])
    times = LENGTH / max(LENGTH, mixture["sequence_length"])
    entries = pick_entries(mixture, published, most)
    for entry in entries:
        if entry.get("sequence_length"):
            entry["sequence_length"] = max(LENGTH // 2, int(entry["sequence_length"] * times))
    kept = {
        key: value
        for key, value in mixture.items()
        if key not in ("shares", "repeat", "tokens", "sequences", "held_out", "max_repetition")
    }
    kept |= {"entries": entries, "sequence_length": int(mixture["sequence_length"] * times)}
    kept["epochs"] = mixture.get("epochs", 1)
    trained = {key: value for key, value in train.items() if key not in ("epochs", "accumulation")}
    trained |= {"steps": 2, "sequences": 1, "warm_up": 0}
    if train.get("adapter"):
        trained["adapter"] = {**train["adapter"], "rank": 2}
    return {**stage, "mixture": kept, "train": trained}


def _shrink_model(model: Mapping[str, Any], side: int, patch: int) -> dict[str, Any]:
    """Towers of a few units, also in the place of a checkpoint of both, whose vision tower is a SigLIP."""
    connector, vision = dict(model.get("connector") or {}), model.get("vision") or {"kind": "siglip"}
    if connector.get("depth"):
        connector["depth"] = 1
    text = {
        "kind": _find_kind(model.get("text") or model["checkpoint"], TEXT_KINDS),
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "positions": 2048,
    }
    return {"family": model["family"], "vision": _shrink_tower(vision, side, patch), "text": text} | (
        {"connector": connector} if connector else {}
    )


def _shrink_tower(tower: Mapping[str, Any], side: int, patch: int) -> dict[str, Any]:
    if tower["kind"] == "fused":
        return {"kind": "fused", **{name: _shrink_tower(tower[name], side, patch) for name in ("first", "second")}}
    sizes = {"hidden_size": 32, "layers": 1, "heads": 2, "image_size": side, "patch_size": patch}
    return {"kind": _find_kind(tower, VISION_KINDS), **sizes}


def _find_kind(tower: Mapping[str, Any], kinds: tuple[str, ...]) -> str:
    """The kind of a tower with new weights, or what the name of a pretrained one tells."""
    named = f"{tower['kind']} {tower.get('path', '')}".lower()
    return next((kind for kind in kinds if kind in named), kinds[-1])


# -- built from stand-ins


@dataclass(frozen=True)
class SmallBuild:
    """A small recipe that was built from stand-ins."""

    data: Mapping[str, Any]  # of the small recipe
    run: Path
    published: Mapping[str, Mapping[str, PublishedEntry]]  # see `read_published`


def build_small(name: str, hub: Hub, folder: Path, most: int | None = 4, rows: int = 12) -> SmallBuild:
    """Build a complete recipe, made small, from stand-ins on a loopback Hub, through all stages to their plans.

    Args:
        name: of the recipe.
        hub: gets the stand-ins; `use_hub` must point at it.
        folder: an empty one for the recipe, the stand-ins and the run.
        most: entries of each mixture that are kept; None for all.
        rows: of a subset of a stand-in, where counts were published of one with the median amount.
    """
    published = read_published(name)
    data = shrink_recipe(compose_complete(name).data, published, most)
    path, run = folder / f"{name}.yaml", folder / "run"
    path.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")
    write_tokenizer(folder / "tokenizer.json")
    recipe = load_recipe(str(path))[0]
    local = {source: place for source, place in LOCAL.items() if source in recipe.sources}
    datasets = [*list_datasets(recipe), *(dataset for dataset, _ in local.values())]
    counts = dict.fromkeys(datasets, rows) | choose_rows(recipe, published, rows, folder / "measured")
    written = write_standins(folder / "standins", datasets, counts)
    fill_hub(hub, written)
    moved = [f"{source}={written[repository].root / file}" for source, (repository, file) in local.items()]
    options = [part for move in moved for part in ("--source", move)] + list_settings(recipe, written)
    for source, (repository, _) in local.items():
        if recipe.sources[source].images:
            options += ["--set", f"sources.{source}.images={written[repository].pictures}"]
    if vlmill("build", path, "--out", run, "--workers", 0, *options):
        raise AssertionError(f"the build of {name} from stand-ins failed; its message stands above")
    return SmallBuild(data, run, published)


def list_planned(
    stats: Mapping[str, Any], published: Mapping[str, PublishedEntry], epochs: float
) -> Iterator[tuple[str, float, float, float]]:
    """Of each source of a plan: label, amount planned, amount that the published entry asks for, that of a sample.

    Args:
        stats: of the stage.
        published: of the stage, see `read_published`.
        epochs: of the mixture.
    """
    asked = {source["name"]: published[source["name"]].entry for source in stats["sources"]}
    shares = sum(entry.share or 0 for entry in asked.values())
    unit = stats["unit"] if shares else "samples"
    total = sum(source["planned"][unit] for source in stats["sources"])
    for source in stats["sources"]:
        entry, planned, there = asked[source["name"]], source["planned"], source["available"]
        wanted = total * entry.share / shares if shares else (entry.repeat or 1) * epochs * there["samples"]
        yield source["name"], planned[unit], wanted, 1 if unit == "samples" else 2 * there[unit] / there["samples"]
