"""The bounds of a recipe that a slider moves: which value each is on, where it stands, and the recipe without it.

These are the bounds on one value of an image, text or sample that only ever lose more when they are tightened. Bounds
that depend on how many images are left (`shape.max_images`, words per image) do not: `what-if` answers for them.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.files import read_json
from vlmill.pipeline.core.names import QUANTILES_FILE
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.filters import ImageQuality, Shape, Threshold
from vlmill.pipeline.filters.threshold import Bound
from vlmill.pipeline.recipe.overrides import set_value
from vlmill.pipeline.recipe.schema import Recipe

Side = Literal["min", "max"]

OF_SHAPE: Mapping[str, tuple[str, Side, float]] = {
    "min_side": ("short_side", "min", 1),
    "max_side": ("long_side", "max", 1 << 31),
    "max_ratio": ("ratio", "max", float(1 << 31)),
    "min_pixels": ("pixels", "min", 1),
    "max_pixels": ("pixels", "max", 1 << 62),
}
"""Setting -> the fact that it bounds, from which side, and a value that loses nothing."""
OF_QUALITY: Mapping[str, tuple[str, Side]] = {
    "min_contrast": ("contrast", "min"),
    "min_sharpness": ("sharpness", "min"),
}


@dataclass(frozen=True)
class SliderBound:
    """A bound that can be moved."""

    key: str  # as --set names it, with the side behind a signal's value
    filter: str
    dimension: str
    side: Side
    whole: bool  # whether it drops samples, in place of the image or text that a value is of
    patterns: tuple[str, ...]  # of the sources that it is asked of; none: all
    but: tuple[str, ...]  # patterns of sources that have bounds of their own
    now: Mapping[str, float]  # source -> the value at which it stands; sources without one are not bounded
    whole_numbers: bool = False

    @property
    def sign(self) -> int:
        """What values are multiplied by, so that tightening the bound raises it."""
        return 1 if self.side == "min" else -1

    def asks(self, source: str) -> bool:
        """Whether it is asked of a source."""
        if any(fnmatchcase(source, name) for name in self.but):
            return False
        return not self.patterns or any(fnmatchcase(source, name) for name in self.patterns)


def list_slider_bounds(root: Path, recipe: Recipe, dimensions: Mapping[str, str]) -> list[SliderBound]:
    """The bounds of a recipe that a slider can move, those that are set first.

    Args:
        root: the run's folder.
        recipe: the run's.
        dimensions: name -> what it is of, as the index has them.
    """
    found = [
        *_list_of_threshold(root, recipe, dimensions),
        *_list_of_shape(recipe),
        *_list_of_quality(recipe),
    ]
    return sorted((bound for bound in found if bound.dimension in dimensions), key=lambda bound: not bound.now)


def _list_of_threshold(root: Path, recipe: Recipe, dimensions: Mapping[str, str]) -> Iterator[SliderBound]:
    threshold = recipe.find_threshold() or Threshold()
    cuts = _read_cuts(root, threshold)
    for column in (name for name, of in dimensions.items() if of == "signal"):
        bound = threshold.any.get(column)
        for side in ("min", "max"):
            ranges = {
                name: bound.find_range(column, name, cuts) for name in recipe.sources if bound and bound.asks(name)
            }
            now = {name: least if side == "min" else most for name, (least, most) in ranges.items()}
            yield SliderBound(
                key=f"threshold.any.{column}.{side}",
                filter=Threshold.name,
                dimension=column,
                side=side,
                whole=threshold.drops == "samples",
                patterns=bound.sources if bound else (),
                but=(),
                now={name: value for name, value in now.items() if isfinite(value)},
            )


def _read_cuts(root: Path, threshold: Threshold) -> Mapping[str, float]:
    """The values at the quantiles of the recipe's threshold, once they are there."""
    if not threshold.quantiles or not (root / "steps/signals/quantiles/manifest.json").exists():
        return {}
    (receipt,) = read_manifest(root, "steps/signals/quantiles")
    found: Mapping[str, float] = read_json(
        next(root / file.path for file in receipt.files if file.name == QUANTILES_FILE)
    )
    return found


def _list_of_shape(recipe: Recipe) -> Iterator[SliderBound]:
    shape = next((one for one in recipe.filters if isinstance(one, Shape)), None)
    if shape is None or _counts_left(shape):
        return
    for name, (dimension, side, _) in OF_SHAPE.items():
        bound = SliderBound(
            key=f"{Shape.name}.{name}",
            filter=Shape.name,
            dimension=dimension,
            side=side,
            whole=False,
            patterns=shape.sources,
            but=tuple(shape.by_source),
            now={},
            whole_numbers=name != "max_ratio",
        )
        yield _place_bound(bound, recipe, getattr(shape, name))


def _counts_left(shape: Shape) -> bool:
    """Whether samples fall with too many images or words for each, so that losing one may keep another."""
    bounds = (shape, *shape.by_source.values())
    rising = ("max_images", "min_words_per_image", "max_words_per_image")
    return any(getattr(one, name) is not None for one in bounds for name in rising)


def _list_of_quality(recipe: Recipe) -> Iterator[SliderBound]:
    quality = next((one for one in recipe.filters if isinstance(one, ImageQuality)), None)
    if quality is not None:
        for name, (dimension, side) in OF_QUALITY.items():
            key = f"{ImageQuality.name}.{name}"
            bound = SliderBound(key, ImageQuality.name, dimension, side, False, quality.sources, (), {})
            yield _place_bound(bound, recipe, getattr(quality, name))


def _place_bound(bound: SliderBound, recipe: Recipe, value: float | None) -> SliderBound:
    now = {} if value is None else {name: float(value) for name in recipe.sources if bound.asks(name)}
    return replace(bound, now=now)


def drop_bound(recipe: Recipe, bound: SliderBound) -> Recipe:
    """The recipe without a bound."""
    filters = tuple(
        changed
        for one in recipe.filters
        for changed in ((_loosen_filter(one, bound),) if one.name == bound.filter else (one,))
        if changed is not None
    )
    return replace(recipe, filters=filters)


def _loosen_filter(one: Any, bound: SliderBound) -> Any:
    """A filter without the bound; None where nothing is left of it."""
    name = bound.key.rpartition(".")[2]
    if isinstance(one, Shape | ImageQuality):
        loose: dict[str, Any] = {name: None}
        if isinstance(one, Shape) and name not in {"min_pixels", "max_pixels"}:  # these may not be left out
            loose = {name: OF_SHAPE[name][2]}
        return replace(one, **loose)
    left = {column: found for column, found in one.any.items() if column != bound.dimension}
    other = one.any.get(bound.dimension)
    kept = {} if other is None else _list_settings(other, but=bound.side)
    if kept:
        left[bound.dimension] = Bound(**kept)
    return replace(one, any=left) if left or one.all else None


def _list_settings(bound: Bound, but: Side) -> dict[str, Any]:
    """What a bound of a signal says without one of its sides; nothing where that was all."""
    sides = {side for side in ("min", "max") if side != but}
    numbers = {f"{side}{form}" for side in sides for form in ("", "_quantile")}
    found = {name: getattr(bound, name) for name in sorted(numbers) if getattr(bound, name) is not None}
    if not found:
        return {}
    return found | ({"by_source": True} if bound.by_source and bound.quantiles else {}) | _list_sources(bound)


def _list_sources(bound: Bound) -> dict[str, Any]:
    return {"sources": bound.sources} if bound.sources else {}


def write_setting(recipe: Recipe, bound: SliderBound, value: float) -> tuple[str, str]:
    """Key and YAML of `--set` that puts a bound at a value.

    Raises:
        StoreError: nothing could pass there.
    """
    number = int(value) if bound.whole_numbers else value
    if bound.filter != Threshold.name:
        name = bound.key.rpartition(".")[2]
        mine: Any = next(one for one in recipe.filters if one.name == bound.filter)
        _check_setting(bound, lambda: replace(mine, **{name: number}))
        return bound.key, repr(number)
    threshold = recipe.find_threshold()
    other = None if threshold is None else threshold.any.get(bound.dimension)
    settings = {} if other is None else _list_settings(other, but=bound.side) | _list_sources(other)
    _check_setting(bound, lambda: Bound(**{**settings, bound.side: number}))
    settings = {bound.side: number} | {name: _to_plain(one) for name, one in settings.items()}
    if threshold is None or not threshold.any:  # a mapping that is not there yet is set as a whole
        return "threshold.any", _write_flow({bound.dimension: settings})
    return f"threshold.any.{bound.dimension}", _write_flow(settings)


def _check_setting(bound: SliderBound, make: Callable[[], object]) -> None:
    """Refuse a value that the other side of a bound leaves no room for."""
    try:
        make()
    except ValueError as error:
        said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StoreError(f"{bound.key}: {said.removeprefix('Value error, ')}") from error


def _write_flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=True, width=1000).strip()


def _to_plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def apply_settings(data: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """A recipe's mapping with other values at dotted keys.

    Raises:
        RecipeError: there is no such place, or a value is no YAML.
    """
    changed = copy.deepcopy(dict(data))
    for key, text in settings.items():
        set_value(changed, key, text)
    return changed


def diff_recipes(before: Mapping[str, Any], after: Mapping[str, Any], *blocks: str) -> str:
    """What changes in some blocks of a recipe, as a unified diff of their YAML; empty where nothing does."""
    texts = [
        yaml.safe_dump({block: one[block] for block in blocks if block in one}, sort_keys=False, width=100).splitlines()
        for one in (before, after)
    ]
    return "\n".join(difflib.unified_diff(texts[0], texts[1], "recipe.yaml", "recipe.yaml", lineterm="", n=3))


def find_bound(bounds: list[SliderBound], key: str) -> SliderBound:
    """A bound by its key.

    Raises:
        StoreError: there is none.
    """
    for bound in bounds:
        if bound.key == key:
            return bound
    raise StoreError(f"no slider moves {key!r}; there are {', '.join(bound.key for bound in bounds) or 'none'}")
