"""What the families share: a model class over two towers or from a checkpoint, and the names of its components."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer

from vlmill.pipeline.chat.encode import ChatFormat, get_mark_id
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.families import FAMILIES, language, vision
from vlmill.train.families.pretrained import read_config
from vlmill.train.settings import Component, ModelSettings, Pretrained

VISION = ("model.vision_tower.", "model.vision_model.", "model.visual.")
PROJECTOR = (
    "model.visual.merger.",
    "model.visual.deepstack_merger_list.",
    "model.multi_modal_projector.",
    "model.image_newline",
    "model.vision_embed_tokens.",
    "model.connector.",
    "model.perceiver_resampler.",
    "model.gated_cross_attn_layers.",
)


def find_component(parameter: str) -> Component:
    """The component that a parameter belongs to, in any of the model classes."""
    if parameter.startswith(PROJECTOR):
        return "projector"
    return "vision" if parameter.startswith(VISION) else "text"


def is_meta() -> bool:
    """Whether what is built now is to have no weights."""
    return torch.get_default_device().type == "meta"


def choose_connector(settings: ModelSettings) -> str:
    """The kind of connector."""
    return settings.connector.kind or FAMILIES[settings.family].connectors[0]


def assemble_model(
    classes: tuple[Any, Any],
    settings: ModelSettings,
    tokenizer: Tokenizer,
    chat: ChatFormat,
    config: dict[str, Any],
    convert: Callable[[Any], Any] = lambda text: text,
) -> Any:
    """A model in float32, on the CPU: new, with pretrained towers in it, or a checkpoint.

    Within `torch.device("meta")` its form alone, and no weights are read.

    Args:
        classes: of the model and of its configuration.
        settings: of the model.
        tokenizer: of the recipe.
        chat: the format, whose image token the model has to know.
        config: what the configuration says besides the language model, `vision_config` among it.
        convert: makes of a language model's configuration the form that the class has of it.
    """
    model_class, config_class = classes
    image = get_mark_id(tokenizer, chat.image)
    if settings.checkpoint is not None:
        _check_connector(settings.checkpoint, config.get("connector"))
        model = _load_checkpoint(model_class, settings.checkpoint, tokenizer)
        model.config.image_token_id = image
        _adapt_config(model.config, config, settings.checkpoint)
        return model
    text = convert(language.configure_text(settings, tokenizer, chat))
    named = "image_token_index" if hasattr(config_class, "image_token_index") else "image_token_id"
    ours = {"text_config": text, named: image, "tie_word_embeddings": text.tie_word_embeddings}
    model = model_class(config_class(**ours, **config))
    load_towers(model, settings, model.model.get_decoder())
    return model


def load_towers(model: Any, settings: ModelSettings, text: Any) -> None:
    """Put the weights of pretrained towers into a new model whose language model is `text`; none on the meta device."""
    if is_meta():
        return
    names = ("vision_tower", "vision_model", "visual")
    for tower in (getattr(model.model, name) for name in names if hasattr(model.model, name)):  # Fuyu has none
        vision.load_vision(tower, settings.vision)
    if isinstance(settings.text, Pretrained):
        language.load_text(model, text, settings.text)


def _check_connector(source: Pretrained, ours: dict[str, Any] | None) -> None:
    """Refuse a checkpoint that was trained with another connector of ours than the recipe names, or with none."""
    theirs = getattr(read_config(source), "connector", None)
    if theirs != ours:
        said = [{name: value for name, value in (one or {"kind": "mlp"}).items() if value} for one in (theirs, ours)]
        raise RecipeError(
            f"model.connector: {source.path} was trained with {said[0]}, and the recipe has {said[1]}; write the "
            "former in the recipe, or take its towers alone (vision and text) and a new connector"
        )


def _load_checkpoint(model_class: Any, source: Pretrained, tokenizer: Tokenizer) -> Any:
    if is_meta():
        model = model_class(read_config(source))
    else:
        model = model_class.from_pretrained(source.path, revision=source.revision, dtype=torch.float32)
    if (needed := language.count_vocabulary(tokenizer)) > model.get_input_embeddings().num_embeddings:
        if hasattr(model.get_input_embeddings(), "num_additional_embeddings"):
            raise RecipeError(
                f"model.checkpoint: the embeddings of {source.path} cannot grow from {model.config.vocab_size} to "
                f"{needed} tokens; take a tokenizer that has the marks of the chat format among its own"
            )
        model.resize_token_embeddings(needed, mean_resizing=False)
    return model


def _adapt_config(config: Any, ours: dict[str, Any], source: Pretrained) -> None:
    """Let a checkpoint lay images out as the policy does; what its weights were shaped by has to agree."""
    for name in ("image_grid_pinpoints", "vision_aspect_ratio"):
        if name in ours:
            setattr(config, name, ours[name])
    for name, key in (("scale_factor", "shuffle"), ("downsample_ratio", "shuffle"), ("mm_tokens_per_image", "pool")):
        if name in ours and getattr(config, name) != ours[name]:
            raise RecipeError(
                f"model.checkpoint: {source.path} was made with {name} {getattr(config, name)}, and the image "
                f"policy's {key} means {ours[name]}"
            )
