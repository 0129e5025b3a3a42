"""Classes that transformers lacks. Their files travel with exports.

`from_pretrained(folder, trust_remote_code=True)` reads the copies in a folder (`auto_map`), without vlmill. So a file
here imports torch, transformers and, as `from .name import ...`, files beside it: transformers copies these along.
"""

from __future__ import annotations

from typing import Any


def bring_code(model_class: Any, config_class: Any, processor_class: Any = None) -> tuple[Any, Any]:
    """Let what is saved of these classes bring their files along; returns the classes of model and configuration."""
    config_class.register_for_auto_class()
    model_class.register_for_auto_class("AutoModelForImageTextToText")
    if processor_class is not None:
        processor_class.register_for_auto_class("AutoProcessor")
    return model_class, config_class
