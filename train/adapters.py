"""LoRA and DoRA through peft.

A stage trains low-rank updates of a component's matrices, merged into them at its end. So every stage hands a model of
the same form to the next, whatever it trained. Within a stage adapters may take over from others (phases.py): they come
to more layers and grow in rank, and the model computes the same before and after.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.families.base import Family
from vlmill.train.settings import Adapter

MARK = ".lora_"
"""In the name of every parameter that peft adds, DoRA's magnitudes among them."""

FIRST = "default"
"""What peft calls a model's first adapter."""


def change_adapters(model: PreTrainedModel, family: Family, adapter: Adapter) -> None:
    """Put adapters beside all linear layers that `adapter` means, in place; the model computes what it did before.

    Adapters that are there stay as they are. A matrix whose rank is to grow gets a further adapter of the rank that it
    lacks, which starts as no change; adapters of matrices that are not meant are merged. The head is never adapted. New
    adapters are drawn from torch's generator.

    Raises:
        RecipeError: peft is not installed, a component has no such layers, or ranks fall.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise RecipeError("train.adapter needs peft; run in the clone of vlmill: pip install '.[lora]'") from error
    targets = _list_targets(model, family, adapter)
    _merge_modules(model, {name: module for name, module in _list_adapted(model) if name not in targets})
    there = dict(_list_adapted(model))
    known = {adapter_name for module in there.values() for adapter_name in module.r}
    lacking = dict[int, list[str]]()
    for name in targets:
        lacking.setdefault(adapter.rank - (sum(there[name].r.values()) if name in there else 0), []).append(name)
    if min(lacking) < 0:
        raise RecipeError(f"train.adapter.rank: {adapter.rank} is below that of adapters that it goes on with")
    for rank, names in sorted(lacking.items()):
        if rank:
            config = LoraConfig(
                r=rank,
                lora_alpha=(adapter.alpha or adapter.rank) * rank / adapter.rank,
                lora_dropout=adapter.dropout,
                use_dora=adapter.dora,
                target_modules=names,
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # which is what is meant
                inject_adapter_in_model(config, model, f"grown{len(known)}" if known else FIRST)
    for _, module in _list_adapted(model):
        module.set_adapter(list(module.r))


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the adapters to the matrices beside which they stand, and take them away, in place."""
    _merge_modules(model, dict(_list_adapted(model)))


def _list_adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Peft's modules, each around the one that it adapts."""
    for name, module in model.named_modules():
        if hasattr(module, "merge") and hasattr(module, "base_layer"):
            yield name, module


def _merge_modules(model: PreTrainedModel, adapted: Mapping[str, Any]) -> None:
    for name, module in adapted.items():
        module.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module.get_base_layer())


def _list_targets(model: PreTrainedModel, family: Family, adapter: Adapter) -> list[str]:
    """The linear layers that are to have adapters, in the model's order.

    Raises:
        RecipeError: a component has none, as it has no stack of layers.
    """
    head = model.get_output_embeddings()
    adapted = {name for name, _ in _list_adapted(model)}
    linear = [
        name
        for name, module in model.named_modules()
        if name in adapted
        or (isinstance(module, nn.Linear) and module is not head and adapted.isdisjoint(_list_parents(name)))
    ]
    found: dict[str, list[str]] = {component: [] for component in adapter.components}
    for name in linear:
        component = family.component(f"{name}.weight")
        if component in found and _is_among_last(model, name, adapter.depth):
            found[component].append(name)
    if empty := [component for component, names in found.items() if not names]:
        raise RecipeError(
            f"train.adapter.layers: {adapter.layers}: {', '.join(empty)} has no stack of layers with linear maps; "
            "write layers: all, or leave it out of components"
        )
    meant = {name for names in found.values() for name in names}
    return [name for name in linear if name in meant]


def _list_parents(name: str) -> Sequence[str]:
    """The modules that a module is inside of, by name."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _is_among_last(model: nn.Module, name: str, depth: int | None) -> bool:
    """Whether a module is in one of the last `depth` layers of its stack, the outermost list of modules around it."""
    if depth is None:
        return True
    for inside in (*_list_parents(name), name):
        parent, _, place = inside.rpartition(".")
        stack = model.get_submodule(parent)
        if isinstance(stack, nn.ModuleList):
            return int(place) >= len(stack) - depth
    return False
