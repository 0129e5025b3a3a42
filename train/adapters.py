"""LoRA and DoRA through peft.

A stage trains low-rank updates of a component's matrices, merged into them at its end.

So every stage hands a model of the same form to the next, whatever it trained.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.families.base import Family
from vlmill.train.settings import Adapter

MARK = ".lora_"
"""In the name of every parameter that peft adds, DoRA's magnitudes among them."""


def inject_adapters(model: PreTrainedModel, family: Family, adapter: Adapter) -> None:
    """Put adapters beside all linear layers of the adapted components but the head, in place; new ones change nothing.

    Raises:
        RecipeError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise RecipeError("train.adapter needs peft; run in the clone of vlmill: pip install '.[lora]'") from error
    head = model.get_output_embeddings()
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and family.component(f"{name}.weight") in adapter.components
    ]
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or adapter.rank,
        lora_dropout=adapter.dropout,
        use_dora=adapter.dora,
        target_modules=targets,
    )
    inject_adapter_in_model(config, model)


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the adapters to the matrices beside which they stand, and take them away, in place."""
    adapted: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "merge") and hasattr(module, "base_layer")
    ]
    for name, module in adapted:
        module.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module.get_base_layer())
