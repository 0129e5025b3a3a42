"""Deferred initialisation gives the bits of a model that was built at once, whole and in any part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from tests.helpers.stages import LETTERBOX, write_tokenizer
from tests.train.test_families import CASES, FORMS, TEXT, VISION, as_wide, text_of
from tests.train.test_train_new_rows import settings as with_language_model
from tests.train.test_train_new_rows import write_language_model
from vlmill.pipeline.chat.encode import FORMATS, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.train import deferred, model, new_rows
from vlmill.train.adapters import change_adapters
from vlmill.train.deferred import DeferredTensor
from vlmill.train.families import find_family, vision
from vlmill.train.materialise import materialise_module
from vlmill.train.model import create_model, defer_model, save_weights
from vlmill.train.settings import Adapter, ModelSettings

CHUNK = 48


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """All that has more than a handful of elements is put off, and computed in several chunks."""
    monkeypatch.setattr(deferred, "LEAST", 64)
    monkeypatch.setattr(deferred, "CHUNK", CHUNK)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    path = write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    return {name: load_tokenizer(path, chat) for name, chat in FORMATS.items()}


def build_at_once(family, tokenizer, chat, seed, start_from=None, adapter=None, new=None):
    """What `create_model` makes, as torch and transformers build it themselves."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = family.build(tokenizer, chat)
        if start_from is not None:
            model.load_weights(made, start_from, family.new)
        elif new is not None:
            new_rows.draw_rows(made, tokenizer, new)
        if adapter is not None:
            change_adapters(made, family, adapter)
    return made


def list_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers, those that are not in a state dict as well, under all their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    """To the bit, and shared where that is."""
    ours, theirs = list_tensors(found), list_tensors(expected)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert type(ours[name]) is type(tensor), name
        assert ours[name].requires_grad == tensor.requires_grad, name
        assert torch.equal(ours[name], tensor) or (tensor.isnan() == ours[name].isnan()).all(), name
    for shared in (ours, theirs):
        assert len({*map(id, shared.values())}) == len({*map(id, theirs.values())})


def count_deferred(module: nn.Module) -> tuple[int, int]:
    """Elements of parameters that were put off and still are, and of all."""
    found = [
        (each.numel(), isinstance(each, DeferredTensor) and each.elements.whole is None) for each in module.parameters()
    ]
    return sum(size for size, waits in found if waits), sum(size for size, _ in found)


def compare(family, tokenizer, chat, **settings) -> None:
    """A model that was put off with one that was not."""
    expected = build_at_once(family, tokenizer, chat, 7, **settings)
    found = defer_model(family, tokenizer, chat, 7, **settings)
    waiting, total = count_deferred(found)
    assert waiting > 0.8 * total
    for name, tensor in list_tensors(expected).items():
        deferred = list_tensors(found)[name]
        if isinstance(deferred, DeferredTensor):  # the shares of three ranks, cut by rows as FSDP2 does it
            width, rows = tensor.shape[1:].numel(), -(-len(tensor) // 3)
            for first in range(0, len(tensor), rows):
                share = tensor[first : first + rows].flatten()
                assert torch.equal(deferred.read(first * width, first * width + len(share)), share), name
    materialise_module(found)
    assert_same(found, expected)


@pytest.mark.parametrize("name", CASES)
def test_new_models_of_all_families_have_the_weights_of_models_built_at_once(tokenizers, name):
    case = CASES[name]
    compare(case.found, tokenizers[case.chat], FORMATS[case.chat])


@pytest.mark.parametrize("name", [*FORMS, "fused"])
def test_published_towers_in_bfloat16_and_several_files_are_read_as_at_once(tmp_path, tokenizers, name):
    from transformers import AutoModel

    case = CASES["llava, fused" if name == "fused" else name]
    form = {"first": case.vision["first"], "second": VISION} if name == "fused" else {}
    form = form or {"vision": {**(case.vision or VISION), "kind": FORMS[name]}}
    towers = {}
    for place, tower in form.items():
        whole = parse_block(ModelSettings, {"family": "llava", "vision": tower, "text": case.text or TEXT}, "model")
        AutoModel.from_config(as_wide(vision.configure_vision(whole))).bfloat16().save_pretrained(tmp_path / place)
        towers[place] = {"kind": "pretrained", "path": str(tmp_path / place)}
    text_of(case).bfloat16().save_pretrained(tmp_path / "text", max_shard_size="20KB")
    assert len(list((tmp_path / "text").glob("*.safetensors"))) > 2
    towers = {"kind": "fused", **towers} if name == "fused" else towers["vision"]
    case = replace(case, vision=towers, text={"kind": "pretrained", "path": str(tmp_path / "text")})
    compare(case.found, tokenizers[case.chat], FORMATS[case.chat])


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def pretrained(request, tmp_path):
    """A family over a published language model, tied or not, whose tokenizer lacks the chat's marks, and these."""
    path = write_language_model(tmp_path / "lm", tied=request.param)
    settings = with_language_model(path)
    tokenizer = load_tokenizer(path / "tokenizer.json", FORMATS["vlmill"])
    own = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    return (
        find_family(settings, LETTERBOX),
        tokenizer,
        new_rows.find_new_rows(settings, tokenizer, FORMATS["vlmill"], own),
    )


@pytest.mark.parametrize(
    "adapter", [None, Adapter(components=("text",), rank=4), Adapter(components=("text",), rank=4, dora=True)]
)
def test_new_rows_and_adapters_of_a_published_model_are_those_drawn_at_once(pretrained, adapter, monkeypatch):
    family, tokenizer, new = pretrained
    assert new.drawn
    monkeypatch.setattr(new_rows, "BLOCK", 3 * 320)
    pytest.importorskip("peft")
    compare(family, tokenizer, FORMATS["vlmill"], new=new, adapter=adapter)


def test_the_weights_of_the_stage_before_are_read_as_at_once(pretrained, tmp_path):
    family, tokenizer, new = pretrained
    save_weights(create_model(family, tokenizer, FORMATS["vlmill"], 1, new=new), tmp_path)
    compare(family, tokenizer, FORMATS["vlmill"], start_from=tmp_path)
