"""What a recipe takes from what others published: a stage's mixture, and the model of a preset.

    model: {preset: llava-1.5-7b, replace: {text.path: /data/vicuna-7b-v1.5}}
    mixture:
      published: idefics2/stage1
      sources: {obelics: web, pairs: laion}
      entries: {mine: 25}
      replace: {sequence_length: 1024}

Both become plain values before the recipe is read further. Published mixtures are the YAML files of
`mixtures/published`; here they are data, and vlmill.mixtures checks what they say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.located import Located, read_located
from vlmill.pipeline.recipe.merge import merge_mappings, replace_values

FORMS = {"shares": "share", "repeat": "repeat", "entries": "share"}
"""How a mixture lists its sources -> what a number behind one is."""
EVERY = "*"
"""Published entries that are not mapped by name; in our name for the published one."""


@dataclass(frozen=True, config=STRICT)
class PublishedUse:
    """A published mixture in a stage: `vlmill mixtures list` names them. Keys of a mixture may stand beside these.

    `entries` beside it are further sources: their shares count beside the published ones.
    """

    published: str  # NAME/STAGE of a published mixture
    sources: dict[str, str] = field(
        default_factory=dict
    )  # published entry -> source of this recipe; `"*": "cauldron-*"` for all that are not named
    without: tuple[str, ...] = ()  # published entries that are left out; the shares of the others keep their ratios
    replace: dict[str, Any] = field(default_factory=dict)  # key of the published mixture -> value in its place


@dataclass(frozen=True, config=STRICT)
class PresetUse:
    """The model of a preset. Keys of a model that the preset has not may stand beside these."""

    preset: str  # one of recipes/presets
    replace: dict[str, Any] = field(default_factory=dict)  # dotted key of the preset -> value in its place


@dataclass(frozen=True, config=STRICT)
class Mapped:
    """A published entry in a stage: what it is called there and here."""

    stage: str
    published: str  # the mixture
    entry: str
    source: str
    origin: str
    without: tuple[str, ...]  # entries of the mixture that were left out


TakePreset = Callable[[Any, str], Located]


def expand_stages(whole: Located, take_preset: TakePreset, mapped: list[Mapped]) -> Located:
    """A recipe's mapping whose published mixtures and preset are spelt out.

    Args:
        whole: the mapping.
        take_preset: the model of a preset, of its name and the place that asks for it.
        mapped: what was mapped is added here.

    Raises:
        RecipeError: there is no such mixture or preset, an entry is not mapped, or a value stands there twice.
    """
    model, stages = whole.value.get("model"), whole.value.get("stages")
    if model is not None and isinstance(model.value, dict) and "preset" in model.value:
        whole = whole.with_item("model", _expand_preset(model, take_preset))
    if stages is not None and isinstance(stages.value, list):
        expanded = [_expand_stage(stage, mapped) for stage in stages.value]
        whole = whole.with_item("stages", Located(expanded, stages.origin))
    return whole


def _expand_preset(model: Located, take_preset: TakePreset) -> Located:
    use, beside = _split_block(PresetUse, model, "model")
    return _lay_beside(take_preset(use.preset, model.value["preset"].origin), beside, model, "model")


def _expand_stage(stage: Located, mapped: list[Mapped]) -> Located:
    mixture = stage.value.get("mixture") if isinstance(stage.value, dict) else None
    if mixture is None or not isinstance(mixture.value, dict) or "published" not in mixture.value:
        return stage
    name = str(stage.value["name"].value) if "name" in stage.value else "?"
    where = f"stages.{name}.mixture"
    use, beside = _split_block(PublishedUse, mixture, where)
    found = _read_stage(use.published, where, mixture.value["published"].origin)
    entries, others = _list_entries(found)
    sources = _map_entries(use, list(entries), where, mixture.origin)
    mapped += [
        Mapped(name, use.published, entry, source, mixture.origin, use.without) for entry, source in sources.items()
    ]
    ours = [
        Located({"source": Located(sources[key], mixture.origin), **entry.value}, entry.origin)
        for key, entry in entries.items()
        if key in sources
    ]
    number = "share" if any("share" in entry.value for entry in ours) else "repeat"
    ours += _list_added(beside, where, number)
    made = Located({**others, "entries": Located(ours, found.origin)}, found.origin)
    return stage.with_item("mixture", _lay_beside(made, beside, mixture, where))


def _list_added(beside: dict[str, Located], where: str, number: str) -> list[Located]:
    """The entries that a recipe adds to a published mixture, each with its source; taken out of what stands beside.

    `number` is what published entries have, `share` or `repeat`.
    """
    block = beside.pop("entries", None)
    if other := next((form for form in FORMS if form in beside), None):
        raise RecipeError(
            f"{where}: {other} stands beside `published`, which lists sources itself; write further ones as "
            f"`entries: {{SOURCE: {{{number}: 1}}}}` ({beside[other].origin})"
        )
    if block is None:
        return []
    if isinstance(block.value, list):
        return block.value
    if not isinstance(block.value, dict):
        raise RecipeError(f"{where}.entries is {block.to_data()!r:.80}; it names sources ({block.origin})")
    added = list[Located]()
    for name, entry in block.value.items():
        long = entry.value if isinstance(entry.value, dict) else {"share": entry}
        added.append(Located({"source": Located(name, entry.origin), **long}, entry.origin))
    return added


def _split_block(form: Any, block: Located, where: str) -> tuple[Any, dict[str, Located]]:
    """The keys of a form in a block, read; and those beside them."""
    names = form.__dataclass_fields__
    use = parse_block(form, {key: item.to_data() for key, item in block.value.items() if key in names}, where)
    return use, {key: item for key, item in block.value.items() if key not in names}


def _lay_beside(made: Located, beside: dict[str, Located], block: Located, where: str) -> Located:
    """What was taken, with what the block replaces in it and what stands beside it."""
    if "replace" in block.value:
        made = replace_values(made, block.value["replace"], f"{where}: ")
    return merge_mappings(made, Located(beside, block.origin), where=f"{where}.")


def list_published() -> dict[str, Path]:
    """Published mixtures that ship: name -> file."""
    folder = Path(str(files("vlmill.mixtures.published")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def list_published_stages() -> list[str]:
    """The stages of published mixtures, as `published` names them: NAME/STAGE."""
    found = list_published().items()
    return [f"{name}/{stage}" for name, file in found for stage in read_located(file).value["stages"].value]


def _read_stage(published: str, where: str, origin: str) -> Located:
    name, _, stage = published.partition("/")
    if name not in list_published():
        raise RecipeError(
            f"{where}.published: there is no {published!r:.80}; {suggest_names(name, list_published())} ({origin})"
        )
    stages = read_located(list_published()[name]).value["stages"].value
    if stage not in stages:
        raise RecipeError(
            f"{where}.published: {name} has no stage {stage!r:.80}; {suggest_names(stage, stages)} ({origin})"
        )
    found: Located = stages[stage].value["mixture"]
    return found


def _list_entries(mixture: Located) -> tuple[dict[str, Located], dict[str, Located]]:
    """The entries of a published mixture by label, in their long form, and its other keys."""
    (form,) = [key for key in FORMS if key in mixture.value]
    block, found = mixture.value[form], dict[str, Located]()
    if isinstance(block.value, dict):
        listed = [(name, entry) for name, entry in block.value.items()]
    else:
        listed = [(str(entry.value["source"].value), entry) for entry in block.value]
    seen = Counter[str]()
    for name, entry in listed:
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name}@{seen[name]}"
        long = entry.value if isinstance(entry.value, dict) else {FORMS[form]: entry}
        found[label] = Located({key: item for key, item in long.items() if key != "source"}, entry.origin)
    return found, {key: item for key, item in mixture.value.items() if key != form}


def _map_entries(use: PublishedUse, entries: list[str], where: str, origin: str) -> dict[str, str]:
    """Published entry -> our source, of those that are not left out."""
    unknown = [name for name in (*use.sources, *use.without) if name not in {*entries, EVERY}]
    if unknown:
        raise RecipeError(
            f"{where}: {use.published} has no entry {', '.join(map(repr, unknown))}; "
            f"{suggest_names(unknown[0], entries)} ({origin})"
        )
    if both := [name for name in use.without if name in use.sources]:
        raise RecipeError(f"{where}: {', '.join(both)} is mapped in `sources` and left out in `without` ({origin})")
    every = use.sources.get(EVERY)
    kept = [name for name in entries if name not in use.without]
    missing = [name for name in kept if name not in use.sources and every is None]
    if missing:
        raise RecipeError(
            f"{where}: {use.published} has entries without a source: {', '.join(missing)}; say which source each is in "
            f"`sources: {{{missing[0]}: SOURCE}}`, or leave it out with `without: [{missing[0]}]` ({origin})"
        )
    if not kept:
        raise RecipeError(f"{where}: `without` leaves no entry of {use.published} ({origin})")
    return {name: use.sources.get(name) or str(every).replace(EVERY, name.partition("@")[0]) for name in kept}


def select_used(mapped: Sequence[Mapped], data: Mapping[str, Any]) -> list[Mapped]:
    """What was mapped and is still in a recipe: one that includes another may replace its mixtures, or not take them.

    Args:
        mapped: what was mapped in any of its files.
        data: the recipe's mapping, with all that it includes.
    """
    sources = set[tuple[Any, Any]]()
    for stage in data.get("stages") or ():
        mixture = stage.get("mixture") if isinstance(stage, dict) else None
        entries = mixture.get("entries") if isinstance(mixture, dict) else None
        sources |= {(stage.get("name"), entry.get("source")) for entry in entries or () if isinstance(entry, dict)}
    return [item for item in mapped if (item.stage, item.source) in sources]


def describe_left_out(data: dict[str, Any], mapped: Sequence[Mapped]) -> Iterator[str]:
    """What a person should know of published mixtures that some entries were left out of: the shares of the others."""
    for stage in data.get("stages") or ():
        here = [item for item in mapped if item.stage == stage.get("name") and item.without]
        listed = stage["mixture"].get("entries") if here else None
        entries = [entry for entry in listed or () if isinstance(entry, dict)]
        shares = [entry["share"] for entry in entries if isinstance(entry.get("share"), int | float)]
        first = [entry.get("source") for entry in entries[: len(here)]]
        if here and len(shares) == len(entries) and first == [item.source for item in here]:
            said = ", ".join(
                f"{item.entry} {100 * share / sum(shares):.4g} %" for item, share in zip(here, shares, strict=False)
            )
            yield (
                f"stages.{stage['name']}.mixture: without {', '.join(here[0].without)}, the other shares of "
                f"{here[0].published} are {said}"
            )


def check_mapped(mapped: Sequence[Mapped], names: Collection[str]) -> None:
    """Refuse published entries whose source the recipe has not.

    Args:
        mapped: what was mapped.
        names: sources of the recipe, and groups of them.

    Raises:
        RecipeError: lists the entries and the sources.
    """
    for stage in dict.fromkeys((item.stage, item.published, item.origin) for item in mapped):
        lost = [
            item
            for item in mapped
            if (item.stage, item.published, item.origin) == stage
            and not any(fnmatchcase(name, item.source) for name in names)
        ]
        if lost:
            said = ", ".join(f"{item.entry} -> {item.source}" for item in lost)
            raise RecipeError(
                f"stages.{stage[0]}.mixture: {stage[1]} is mapped to sources that the recipe has not: {said}; "
                f"{suggest_names(lost[0].source, names)}; leave entries out with `without` ({stage[2]})"
            )
