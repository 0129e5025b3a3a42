"""Tokens that see one another in both directions: Gemma 3's images, in packed documents and beside windows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train import test_families
from tests.train.test_families import CASES, TEXT, VISION, document, logits, made
from vlmill.pipeline.chat.encode import FORMATS
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train import new_rows
from vlmill.train.attention import supports_flash
from vlmill.train.batch import PADDING, pad_sequences
from vlmill.train.families import blocks
from vlmill.train.flops import count_flops
from vlmill.train.model import create_model
from vlmill.train.new_rows import NewRows

tokenizers = test_families.tokenizers
WINDOWS = {"gemma3": (None, 5), "paligemma": (None,)}
"""By family, windows that its language model is tried with."""


def narrowed(model, window):
    """The same model whose sliding layers see a window of tokens."""
    if window is not None:
        model.config.get_text_config().sliding_window = window
    return model


def packed(case, tokenizers):
    """Documents with images at other places than the one before has them."""
    shapes = ((), ((30, 20),), ((90, 30), (20, 70)), ((33, 33), (60, 60), (10, 9)))
    return [document(case, tokenizers, seed, sizes) for seed, sizes in enumerate(shapes)]


CASES_OF = [(name, window) for name, windows in WINDOWS.items() for window in windows]


@pytest.mark.parametrize(("name", "window"), CASES_OF)
def test_packed_documents_have_the_logits_that_transformers_class_gives_them_alone(tokenizers, name, window):
    family, model = made(CASES[name], tokenizers)
    narrowed(model, window)
    documents, start = packed(CASES[name], tokenizers), 0
    found = logits(family, model, [documents])[0]
    for one in documents:
        batch = pad_sequences([[one]], 0)
        inputs = {key: value for key, value in family.inputs(model, batch).items() if key != "attention_mask"}
        inputs.pop("position_ids", None)  # the class has its own
        with torch.no_grad():
            expected = model(input_ids=batch.ids, use_cache=False, **inputs).logits[0]
        assert (found[start : start + len(one.ids)] - expected).abs().max() <= 1e-5
        start += len(one.ids)


@pytest.mark.parametrize("name", WINDOWS)
def test_masks_are_added_where_scores_are_computed_eagerly(tokenizers, name):
    family, model = made(CASES[name], tokenizers)
    documents = packed(CASES[name], tokenizers)
    expected = logits(family, model, [documents])
    model.set_attn_implementation("eager")
    assert (logits(family, model, [documents]) - expected).abs().max() <= 1e-5


def test_an_image_is_seen_in_both_directions_and_a_text_from_behind_alone(tokenizers):
    case = CASES["gemma3"]
    family, model = made(case, tokenizers)
    one = document(case, tokenizers, 1, ((30, 20),))
    tokens = one.layouts[0].tokens
    for place, changed in ((6 + tokens, 6), (7 + tokens, 7 + tokens), (2, 2)):  # last of the image, and of texts
        tile = one.tiles[0][0].copy()
        ids = list(one.ids)
        if place == 6 + tokens:
            tile[-3:, -3:] = 255 - tile[-3:, -3:]
        else:
            ids[place] = ids[place] + 1
        other = replace(one, ids=ids, tiles=([tile],))
        difference = (logits(family, model, [[one]]) - logits(family, model, [[other]]))[0].abs().amax(-1)
        first = 7 if place == 6 + tokens else changed
        assert int((difference > 0).nonzero()[0]) == first


LENGTHS = st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4)


@given(inside=LENGTHS, window=st.none() | st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_mask_is_what_a_document_a_block_and_a_window_mean(inside, window):
    flat = [(number, place, image) for number, one in enumerate(inside) for place, image in enumerate(one)]
    documents = torch.tensor([[number for number, *_ in flat]])
    found = blocks._number_blocks(torch.tensor([[image for *_, image in flat]]), documents)
    mask = blocks.make_block_mask(documents, found, window)[0, 0]
    stretch = [0]
    for (number, _, image), (other, _, before) in zip(flat[1:], flat, strict=False):
        stretch.append(stretch[-1] + (number != other or image != before))
    for looks, (number, _, image) in enumerate(flat):
        for at, (other, _, _) in enumerate(flat):
            together = image and stretch[looks] == stretch[at]
            near = window is None or at > looks - window
            assert bool(mask[looks, at]) == (number == other and near and (at <= looks or together))
    added = blocks.make_block_mask(documents, found, window, additive=True)[0, 0]
    assert torch.equal(added == 0, mask)
    if window is None:
        pairs = sum(len(one) * (len(one) + 1) // 2 for one in inside)
        assert int(mask.sum()) == pairs + blocks.count_block_pairs(found)


@pytest.mark.parametrize(("name", "window"), CASES_OF)
def test_attention_costs_what_the_masks_show(tokenizers, name, window):
    family, model = made(CASES[name], tokenizers)
    narrowed(model, window)
    documents = packed(CASES[name], tokenizers)
    batch = pad_sequences([documents, documents[1:3]], 0)  # with padding, which costs nothing
    price = count_flops(model, family, ("text",))
    text = model.config.get_text_config()
    masks = family.inputs(model, batch)["attention_mask"]
    layers = text.layer_types if isinstance(masks, dict) else [None] * text.num_hidden_layers
    width = 2 * text.num_attention_heads * text.head_dim
    real = batch.sources != PADDING
    seen = sum(
        int((masks if kind is None else masks[kind])[:, 0][real].sum()) * width * 2 * price.passes["text"]
        for kind in layers
    )
    without = replace(price, attention=dict.fromkeys(price.attention, 0), sliding=0)
    assert price.split(batch)[1] - without.split(batch)[1] == pytest.approx(seen, rel=0 if window is None else 0.05)


@pytest.mark.parametrize("name", WINDOWS)
def test_estimates_know_blocks_and_windows(tokenizers, name):
    family, model = made(CASES[name], tokenizers)
    price, case = count_flops(model, family, ("vision", "projector", "text")), CASES[name]
    batch = pad_sequences([[document(case, tokenizers, 1, ((30, 20), (20, 20)))]], 0)
    pairs = int((batch.positions + 1).sum())
    (found,) = price.estimate(torch.tensor([[batch.tokens, pairs, 2]]).numpy(), case.policy.side)
    assert found.tolist() == pytest.approx(replace(price, head=0).split(batch), rel=0.1)


@pytest.mark.parametrize("name", WINDOWS)
def test_flash_kernels_which_take_no_mask_are_left_alone(tokenizers, name):
    assert not supports_flash(made(CASES[name], tokenizers)[1])


@pytest.mark.parametrize("name", WINDOWS)
def test_rows_that_learn_alone_are_scaled_as_embeddings_are(tokenizers, name):
    family, model = made(CASES[name], tokenizers)
    one = document(CASES[name], tokenizers, 1)
    expected = logits(family, model, [[one]])
    new_rows.insert_rows(model, NewRows(trained=tuple(sorted(set(one.ids)))))
    assert (logits(family, model, [[one]]) - expected).abs().max() <= 1e-5
    with torch.no_grad():
        model.get_input_embeddings().new_rows.rows += 1
    changed = logits(family, model, [[one]])
    new_rows.merge_rows(model)
    assert (logits(family, model, [[one]]) - changed).abs().max() <= 1e-5
    assert (changed - expected).abs().max() > 1e-3


# -- Gemma 3: what fits


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision": {**VISION, "kind": "clip"}}, "tower of the form of siglip_vision_model, not clip_vision_model"),
        ({"text": TEXT}, "has the layers of gemma3_text, not of llama"),
        ({"connector": {"kind": "mlp"}}, "gemma3 has pool, not mlp"),
    ],
)
def test_what_gemma_3_cannot_be_made_of_is_refused(tokenizers, changes, said):
    with pytest.raises(RecipeError, match=said):
        made(replace(CASES["gemma3"], **changes), tokenizers)


def test_a_whole_model_is_no_language_model(tmp_path, tokenizers):
    made(CASES["gemma3"], tokenizers)[1].save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"\(gemma3\) is a whole model; model\.checkpoint takes one"):
        made(replace(CASES["gemma3"], text={"kind": "pretrained", "path": str(tmp_path)}), tokenizers)


def test_a_checkpoint_that_pools_otherwise_is_refused(tmp_path, tokenizers):
    case = CASES["gemma3"]
    family = test_families.find_family(
        test_families.saved(case, tokenizers, tmp_path), replace(case.policy, pool=1), case.chat
    )
    with pytest.raises(RecipeError, match="mm_tokens_per_image 4, and the image policy's pool means 16"):
        create_model(family, tokenizers[case.chat], FORMATS[case.chat], 0)


def test_a_tower_for_smaller_images_is_taken_to_the_side_of_the_policy(tmp_path, tokenizers):
    case = CASES["gemma3"]
    small = made(case, tokenizers)[1].model.vision_tower
    small.save_pretrained(tmp_path)
    larger = replace(case, policy=replace(case.policy, side=56), vision={"kind": "pretrained", "path": str(tmp_path)})
    family, model = made(larger, tokenizers)
    assert model.config.vision_config.image_size == 56
    assert model.model.vision_tower.embeddings.position_embedding.weight.shape == (64, 32)
    assert logits(family, model, [[document(larger, tokenizers, 1)]]).isfinite().all()
