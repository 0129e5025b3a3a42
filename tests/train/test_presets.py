"""Model presets: each fits its own policy, builds with small towers, and takes the weights that a recipe names."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.helpers.stages import write_tokenizer
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import POLICIES
from vlmill.pipeline.recipe.include import list_presets
from vlmill.pipeline.recipe.load import compose_recipe
from vlmill.train.families import FAMILIES, find_family
from vlmill.train.model import create_model
from vlmill.train.settings import ModelSettings, Pretrained, read_model_settings
from vlmill.train.validate import validate_whole_recipe

PRESETS = sorted(list_presets())
OURS = ("mobilevlm", "moondream", "prism")
"""How the names of presets begin whose models are of classes of ours."""

TEXT = {"kind": "llama", "hidden_size": 64, "layers": 2, "heads": 2}


def write_recipe(folder, preset, model):
    taken = yaml.safe_load(list_presets()[preset].read_text())
    (policy,) = taken["policies"]
    data = {
        "name": "a",
        "include": [{"recipe": f"presets/{preset}", "take": ["policies", "chat"]}],
        "sources": {"quiz": {"kind": "cauldron", "files": "x"}},
        "tokenizer": "t.json",
        "stages": [
            {
                "name": "one",
                "policy": policy,
                "mixture": {"shares": {"quiz": 1}, "sequence_length": 64},
                "train": {"learning_rate": {"projector": 1.0e-3}, "steps": 1},
            }
        ],
        "model": {"preset": preset, **model},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


def shrink(block, side, patch):
    """A tower of the same kind, a few units wide."""
    if block["kind"] == "patches":
        return {"kind": "patches", "patch_size": patch}
    if block["kind"] == "fused":
        return {"kind": "fused", **{name: shrink(block[name], side, patch) for name in ("first", "second")}}
    kind = next(kind for kind in ("siglip", "clip", "dinov2") if kind in block["path"])
    sizes = {"hidden_size": 32, "layers": 2, "heads": 2, "image_size": side, "patch_size": patch}
    return {"kind": kind, **sizes}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_its_own_policy_and_says_where_its_values_are_from(tmp_path, preset):
    found = compose_recipe(write_recipe(tmp_path, preset, {}))
    validate_whole_recipe(found.recipe)
    model = read_model_settings(found.recipe)
    assert isinstance(model.text or model.checkpoint, Pretrained)
    head = re.match(r"(?:#.*\n)+", list_presets()[preset].read_text())[0]
    assert re.search(r"arXiv \d|github\.com/|transformers|card", head), "no source is named"
    file = str(list_presets()[preset])
    assert {origin.rpartition(", line")[0] for keys, origin in found.origins.items() if keys[:1] == ("model",)} == {
        file
    }


def replace_weights(folder, taken, side, patch, policy):
    """What a preset's `model` says in place of weights that it takes from elsewhere."""
    model = taken["model"]
    text = TEXT | {"kind": {"gemma3": "gemma3", "paligemma": "gemma"}.get(model["family"], "llama")}
    if "checkpoint" not in model:
        reduced = {"connector.side": side // patch} if "side" in model["connector"] else {}
        return {"vision": shrink(model["vision"], side, patch), "text": text, **reduced}
    towers = {"vision": shrink({"kind": "pretrained", "path": "siglip"}, side, patch), "text": text}
    found = parse_block(ModelSettings, {"family": model["family"], **towers}, "model")
    family = find_family(found, parse_block(POLICIES[policy["kind"]], without_kind(policy), "policy"), taken["chat"])
    chat = FORMATS[taken["chat"]]
    tokenizer = load_tokenizer(write_tokenizer(folder / "t.json"), chat)
    create_model(family, tokenizer, chat, 0).save_pretrained(folder / "whole")
    return {"checkpoint.path": str(folder / "whole")}


def without_kind(values):
    return {name: value for name, value in values.items() if name != "kind"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_builds_with_small_towers(tmp_path, preset):
    taken = yaml.safe_load(list_presets()[preset].read_text())
    ((name, policy),) = taken["policies"].items()
    side = 42 if policy["kind"] == "tiles" else 28
    patch = 7 if policy["kind"] in {"pooled", "tiles"} else 14
    sizes = {
        "anyres": {"side": 28, "pinpoints": [[28, 56], [56, 28]]},
        "navit": {"shortest": 28, "longest": 56, "latents": 4},
        "pooled": {"side": 28, "patch": patch},
        "tiles": {"side": 42, "longest": 84, "patch": patch, "shuffle": min(policy.get("shuffle", 2), 3)},
        "patches": {"width": 28, "height": 28, "patch": patch},
    }.get(policy["kind"], {"side": 28})
    model = {"replace": replace_weights(tmp_path, taken, side, patch, {**policy, **sizes})}
    sets = {f"policies.{name}".replace(name, name) + f".{key}": yaml.safe_dump(value) for key, value in sizes.items()}
    if "." in name:  # a dotted key cannot name it
        sets = {"policies": yaml.safe_dump({"p": {**policy, **sizes}}), "stages.one.policy": "p"}
    recipe = compose_recipe(write_recipe(tmp_path, preset, model), sets=sets).recipe
    validate_whole_recipe(recipe)
    model_settings = read_model_settings(recipe)
    family = find_family(model_settings, next(iter(recipe.policies.values())), recipe.chat)
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "t.json"), FORMATS[recipe.chat])
    model = create_model(family, tokenizer, FORMATS[recipe.chat], 0)
    assert model.config.model_type == family.model_type or preset.startswith(OURS)
    towers = {"vision"} if FAMILIES[model_settings.family].tower else set()
    assert {family.component(name) for name, _ in model.named_parameters()} == {"projector", "text"} | towers


def test_weights_are_named_by_path_and_a_replacement_of_nothing_or_a_second_value_is_refused(tmp_path):
    model = {"replace": {"text.path": "/data/vicuna"}, "export_dtype": "bfloat16", "vision": {"revision": "abc"}}
    settings = read_model_settings(compose_recipe(write_recipe(tmp_path, "llava-1.5-7b", model)).recipe)
    assert (settings.text.path, settings.vision.revision, settings.export_dtype) == ("/data/vicuna", "abc", "bfloat16")
    for wrong, message in (
        ({"replace": {"text.weights": "x"}}, r"model: replace text\.weights .*there is no 'weights'"),
        ({"family": "llava_next"}, r"model\.family: 'llava' \(.*llava-1\.5-7b\.yaml, line \d+\), and 'llava_next'"),
        ({"preset": "llava-1.5"}, r"no 'llava-1\.5'; did you mean 'llava-1\.5-7b'\?"),
        ({"preset": "../quickstart"}, "there is no '../quickstart'"),
        ({"preset": ["x"]}, "preset"),
    ):
        path = write_recipe(tmp_path, "llava-1.5-7b", wrong)
        with pytest.raises(RecipeError, match=message):
            compose_recipe(path)
