"""What a step is said to cost, against what torch counts of the same step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.stages import ANYRES, article, model_settings, question, write_run
from tests.train import test_families
from tests.train.test_families import CASES, document, made
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.train.batch import pad_sequences
from vlmill.train.data import Reader
from vlmill.train.families import find_family
from vlmill.train.flops import count_flops, find_peak
from vlmill.train.model import compute_token_losses, create_model, make_optimizer
from vlmill.train.settings import Training

tokenizers = test_families.tokenizers


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    root = write_run(tmp_path_factory.mktemp("run"), {"quiz": [question(n) for n in range(8)]}, ANYRES, length=400)
    mixture = PlannedMixture(root, "align")
    family = find_family(model_settings(), ANYRES)
    reader = Reader(mixture, load_tokenizer(mixture.tokenizer, mixture.chat), family, "answers")
    return reader, create_model(family, reader.tokenizer, mixture.chat, 0), family


def counted(model, family, batch):
    """Operations that torch sees in a forward and backward pass, attention (whose masks it does not see) left out."""
    counter = FlopCounterMode(display=False)
    with counter:
        losses, _ = compute_token_losses(model, family, batch, torch.device("cpu"), torch.float32)
        losses.sum().backward()
    by_operator = counter.get_flop_counts()["Global"]
    return sum(number for operator, number in by_operator.items() if "attention" not in str(operator))


@pytest.mark.parametrize("trained", [("projector",), ("projector", "text"), ("vision", "projector", "text")])
def test_linear_layers_cost_what_torch_counts(setting, trained):
    reader, model, family = setting
    make_optimizer(model, family, Training(learning_rate=dict.fromkeys(trained, 1e-3), steps=1))
    batch = pad_sequences([reader.sequence(0)], 0)
    price = count_flops(model, family, trained)
    alone = replace(price, attention=dict.fromkeys(price.attention, 0))
    assert alone.of(batch) == pytest.approx(counted(model, family, batch), rel=0.1)
    assert price.of(batch) > alone.of(batch)


NAMES = ("llava, InternViT", "gemma3", "idefics3", "internvl", "fuyu", "paligemma", "qwen2_5_vl", "qwen3_vl")


@pytest.mark.parametrize("name", NAMES)
def test_they_do_so_where_patches_are_grouped(tokenizers, name):
    family, model = made(CASES[name], tokenizers)
    model.train()
    batch = pad_sequences([[document(CASES[name], tokenizers, 1, ((80, 60), (30, 90)))]], 0)
    price = count_flops(model, family, ("vision", "projector", "text"))
    alone = replace(price, attention=dict.fromkeys(price.attention, 0), windowed=0)
    assert alone.of(batch) == pytest.approx(counted(model, family, batch), rel=0.1)


def test_windows_cost_less_than_the_whole_image(tokenizers):
    case = CASES["qwen2_5_vl"]
    case = replace(case, vision={**case.vision, "layers": 8}, policy=replace(case.policy, max_pixels=70 * 280))
    family, model = made(case, tokenizers)
    (width,) = {2 * layer.attn.proj.weight.shape[0] for layer in model.model.visual.blocks}
    price = count_flops(model, family, ("projector",))
    assert (price.attention["vision"], price.windowed) == (4 * width, 4 * width)
    batch = pad_sequences([[document(case, tokenizers, 1, ((266, 70),))]], 0)
    (rows, columns) = (10, 38)  # patches, and windows of 8 x 8
    assert batch.tiles[0][0].shape == (7 * rows, 7 * columns, 3)
    pairs = (8**2 + 2**2) * (4 * 8**2 + 6**2)
    without = replace(price, windowed=0).of(batch)
    assert price.of(batch) - without == 2 * 4 * width * pairs * price.passes["vision"]


def test_documents_packed_into_a_row_cost_what_they_cost_alone(setting):
    reader, model, family = setting
    price, documents = count_flops(model, family, ("text",)), reader.sequence(0)
    assert len(documents) > 1
    assert price.of(pad_sequences([documents], 0)) == pytest.approx(
        sum(price.of(pad_sequences([[one]], 0)) for one in documents)
    )


def test_padding_and_blank_images_cost_nothing(setting, tmp_path):
    reader, model, family = setting
    price = count_flops(model, family, ("text",))
    text = write_run(tmp_path, {"web": [([node], []) for node in article(0)[0] if node.kind == "text"]}, ANYRES)
    documents = Reader(PlannedMixture(text, "align"), reader.tokenizer, family, "text").sequence(0)
    assert price.of(pad_sequences([documents], 0, reader.blank)) == price.of(pad_sequences([documents], 0))
    assert price.of(pad_sequences([documents, documents[:1]], 0)) == price.of(pad_sequences([documents], 0)) + price.of(
        pad_sequences([documents[:1]], 0)
    )


def test_a_peak_is_known_of_what_a_data_sheet_says_it():
    assert find_peak(torch.device("cpu"), "bfloat16") is None
