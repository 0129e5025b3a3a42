"""Positions on three axes: what each scheme promises, and that training and generation place tokens alike."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train import test_families
from tests.train.test_families import CASES, document, logits, made, prompt
from vlmill.pipeline.chat.encode import FORMATS
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.train.batch import PADDING, pad_sequences
from vlmill.train.export import export_model, load_export
from vlmill.train.families import find_family
from vlmill.train.families.exported.positions import SCHEMES, TIED, place_image, place_tokens
from vlmill.train.model import compute_features, create_model
from vlmill.train.settings import ModelSettings

tokenizers = test_families.tokenizers
one_thread = test_families.one_thread
NAMES = ["qwen2_5_vl", "qwen3_vl"]
grids = st.tuples(st.integers(1, 12), st.integers(1, 12))


def put(scheme, parts):
    """Positions (3, length) of one document of texts (their lengths) and images (their grids)."""
    lengths = [part if isinstance(part, int) else part[0] * part[1] for part in parts]
    shown = [not isinstance(part, int) for part, length in zip(parts, lengths, strict=True) for _ in range(length)]
    images = [part for part in parts if not isinstance(part, int)]
    return place_tokens(scheme, torch.tensor([shown]), torch.zeros(1, len(shown), dtype=torch.long), images)[:, 0]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_text_alone_is_placed_by_its_place_in_its_document_on_all_axes(scheme, lengths):
    documents = torch.tensor([[number for number, length in enumerate(lengths) for _ in range(length)]])
    found = place_tokens(scheme, torch.zeros_like(documents, dtype=torch.bool), documents, [])
    assert found[:, 0].tolist() == [[place for length in lengths for place in range(length)]] * 3


@pytest.mark.parametrize("scheme", TIED)
@given(grids, st.integers(1, 20), st.integers(1, 5))
def test_texts_before_and_behind_an_image_are_equally_far_from_it(scheme, grid, before, behind):
    found = put(scheme, [before, grid, behind])
    last, image, first = found[:, before - 1], found[:, before:-behind], found[:, -behind]
    for axis in range(3):
        near, far = (image[axis] - last[axis]).sort().values, (first[axis] - image[axis]).sort().values
        torch.testing.assert_close(near, far, atol=1e-4, rtol=0)
        assert near.min() > 0  # it stands between them


@pytest.mark.parametrize("scheme", ["flat", *TIED])
@given(grids, st.integers(1, 20))
def test_an_image_takes_as_much_room_as_its_tokens(scheme, grid, before):
    found = put(scheme, [before, grid, 3])
    assert found[:, -3:].tolist() == [[before + grid[0] * grid[1] + place for place in range(3)]] * 3


@pytest.mark.parametrize("scheme", SCHEMES)
@given(st.lists(grids | st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 9))
def test_text_before_shifts_all_that_follows(scheme, parts, more):
    shifted = put(scheme, [more, *parts])[:, more:]
    torch.testing.assert_close(shifted, put(scheme, parts) + more, atol=1e-4, rtol=0)


@pytest.mark.parametrize("columns", [1, 2, 7])
def test_a_row_of_patches_is_text_on_its_long_axis_and_in_the_middle_of_the_short_one(columns):
    found = put("rope_tie", [4, (1, columns), 1])
    assert found[2].tolist() == list(range(columns + 5))
    assert set(found[1, 4:-1].tolist()) == {3 + (columns + 1) / 2}
    assert put("rope_tie", [4, (columns, 1), 1])[1].tolist() == found[2].tolist()


def test_the_first_version_stretches_an_image_and_the_second_leaves_it_as_a_grid():
    first, second = put("rope_tie", [1, (2, 3), 1])[:, 1:-1], put("rope_tie_v2", [1, (2, 3), 1])[:, 1:-1]
    torch.testing.assert_close(first[1], torch.tensor([7 / 3] * 3 + [14 / 3] * 3))
    torch.testing.assert_close(first[2], torch.tensor([7 / 4, 14 / 4, 21 / 4] * 2))
    assert second[1].tolist() == [3.0] * 3 + [4.0] * 3
    assert second[2].tolist() == [2.5, 3.5, 4.5] * 2


@pytest.fixture(scope="module", params=NAMES)
def stock(request, tokenizers):
    return made(CASES[request.param], tokenizers)[1]


@given(st.lists(st.lists(grids | st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=3))
def test_mrope_is_that_of_the_class_in_each_packed_document(stock, sequence):
    image = stock.config.image_token_id
    ids, numbers, shown, expected = [], [], [], []
    for number, parts in enumerate(sequence):
        alone = []
        for part in parts:
            alone += [5] * part if isinstance(part, int) else [5, *[image] * (part[0] * part[1])]
        tokens = torch.tensor([alone])
        mine = [part for part in parts if not isinstance(part, int)]
        frames = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in mine]) if mine else None
        found, _ = stock.model.get_rope_index(tokens, (tokens == image).int(), frames)
        ids, numbers, shown = [*ids, *alone], [*numbers, *[number] * len(alone)], [*shown, *mine]
        expected.append(found[:, 0])
    found = place_tokens("mrope", torch.tensor([ids]) == image, torch.tensor([numbers]), shown)
    assert torch.equal(found[:, 0], torch.cat(expected, dim=1))


@pytest.mark.parametrize("shown", [[(2, 2)], [(2, 2), (1, 2), (1, 1)]])
def test_images_that_are_not_those_of_the_tokens_are_refused(shown):
    tokens = torch.tensor([[False] + [True] * 6])
    with pytest.raises(ValueError, match="images"):
        place_tokens("mrope", tokens, torch.zeros(1, 7, dtype=torch.long), shown)


# -- models


def by_scheme(name, tokenizers):
    """The same weights under every scheme."""
    found = {}
    for scheme in SCHEMES:
        found[scheme] = made(replace(CASES[name], positions=scheme), tokenizers, 3)
    weights = found["mrope"][1].state_dict()
    for _, model in found.values():
        model.load_state_dict(weights)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_text_alone_has_the_logits_of_the_stock_class_and_an_image_those_of_its_scheme(tokenizers, name):
    case, found = CASES[name], by_scheme(name, tokenizers)
    words, image = document(case, tokenizers, 1, ()), document(case, tokenizers, 2, ((70, 42),))
    of = {scheme: logits(*made_of, [[words, image]])[0] for scheme, made_of in found.items()}
    end = len(words.ids)
    assert type(found["mrope"][1]).__module__.startswith("transformers.")
    for scheme in SCHEMES:
        assert (of[scheme][:end] - of["mrope"][:end]).abs().max() <= 1e-6
        for other in SCHEMES:
            if other != scheme:
                assert (of[scheme][end:] - of[other][end:]).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_under_two_axes_even_frequencies_turn_with_rows_and_odd_ones_with_columns(tokenizers, name):
    _, model = made(replace(CASES[name], positions="rope_tie"), tokenizers)
    rotary, hidden = model.model.language_model.rotary_emb, torch.zeros(1, 1, 32)
    still, _ = rotary(hidden, torch.zeros(3, 1, 1))
    for axis, turned in enumerate([[], [0, 2, 4, 6], [1, 3, 5, 7]]):
        positions = torch.zeros(3, 1, 1)
        positions[axis] = 1.5
        cos, _ = rotary(hidden, positions)
        assert (cos != still)[0, 0].nonzero().flatten().tolist() == [*turned, *(8 + each for each in turned)]
        angle = 1.5 * rotary.inv_freq
        assert torch.equal(cos[0, 0, :8][turned], angle.cos()[turned])  # fractions are not rounded


@pytest.mark.parametrize("scheme", ["mrope", *TIED])
@pytest.mark.parametrize("name", NAMES)
def test_generation_places_tokens_as_training_does(tokenizers, name, scheme):
    case = replace(CASES[name], positions=scheme)
    family, model = made(case, tokenizers)
    pictures = [((40, 20), (30, 50)), ((30, 20),), ()]
    asked = [document(case, tokenizers, number, sizes) for number, sizes in enumerate(pictures)]
    batch = pad_sequences([[one] for one in asked], 0, left=True)
    seen = []
    rotary = model.model.language_model.rotary_emb
    hook = rotary.register_forward_pre_hook(lambda _, given: seen.append(given[1].clone()))
    mask = (batch.sources != PADDING).long()
    said = model.generate(
        input_ids=batch.ids, attention_mask=mask, **prompt(family, model, batch), max_new_tokens=4, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    generated = torch.cat(seen, dim=-1)
    hook.remove()
    for row, one in enumerate(asked):
        answer = said[row, batch.ids.shape[1] :].tolist()
        whole = replace(one, ids=[*one.ids, *answer[:-1]], labels=[*one.labels, *answer[:-1]])
        alone = pad_sequences([[whole]], 0)
        trained = family.inputs(model, alone)["position_ids"][1:, 0]
        torch.testing.assert_close(generated[:, row, -trained.shape[1] :], trained, check_dtype=False)
        with torch.no_grad():
            last = model.get_output_embeddings()(compute_features(model, family, alone))[0, len(one.ids) - 1 :]
        assert last.argmax(-1).tolist() == answer


def test_an_image_of_which_nobody_says_what_its_tokens_are_is_not_placed_as_text(tokenizers):
    case = replace(CASES["qwen2_5_vl"], positions="rope_tie")
    family, model = made(case, tokenizers)
    batch = pad_sequences([[document(case, tokenizers, 1)]], 0)
    given = prompt(family, model, batch)
    with torch.no_grad():
        told = model(input_ids=batch.ids, **given).logits
        del given["mm_token_type_ids"]
        assert torch.equal(model(input_ids=batch.ids, **given).logits, told)


# -- exports and checkpoints


@pytest.mark.parametrize("name", NAMES)
def test_an_export_keeps_its_scheme(tmp_path, tokenizers, name):
    case = replace(CASES[name], positions="rope_tie")
    family, model = made(case, tokenizers)
    folder = export_model(tmp_path / "export", model, family, tokenizers[case.chat], FORMATS[case.chat])
    config = json.loads((folder / "config.json").read_bytes())
    assert (config["model_type"], config["positions"]) == (f"positioned_{name}", "rope_tie")
    one = document(case, tokenizers, 1)
    again = load_export(folder, model, tokenizers[case.chat]).eval()
    assert torch.equal(logits(family, again, [[one]]), logits(family, model, [[one]]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wanted", [None, "mrope", "rope_tie_v2"])
def test_a_checkpoint_keeps_its_scheme_unless_the_recipe_says_another(tmp_path, tokenizers, name, wanted):
    case = replace(CASES[name], positions="rope_tie")
    family, before = made(case, tokenizers, 7)
    folder = export_model(tmp_path / "export", before, family, tokenizers[case.chat], FORMATS[case.chat])
    values = {"family": name, "checkpoint": {"kind": "pretrained", "path": str(folder)}, "positions": wanted}
    family = find_family(parse_block(ModelSettings, values, "model"), case.policy, case.chat)
    after = create_model(family, tokenizers[case.chat], FORMATS[case.chat], 0).eval()
    weights = after.state_dict()
    assert all(torch.equal(each, weights[key]) for key, each in before.state_dict().items())
    one = document(case, tokenizers, 1)
    direct = by_scheme_of(case, wanted or "rope_tie", before, tokenizers)
    assert torch.equal(logits(family, after, [[one]]), logits(*direct, [[one]]))
    assert type(after).__module__.startswith("transformers.") == (wanted == "mrope")
    assert getattr(after.config, "positions", "mrope") == (wanted or "rope_tie")


def by_scheme_of(case, scheme, like, tokenizers):
    """A family and a model with the weights of another under a scheme."""
    family, model = made(replace(case, positions=scheme), tokenizers)
    model.load_state_dict(like.state_dict())
    return family, model


def test_a_family_of_one_axis_says_which_have_three():
    with pytest.raises(
        RecipeError, match="model.positions: .* llava places tokens by flat, not rope_tie; .* qwen2_5_vl, qwen3_vl"
    ):
        _ = replace(CASES["llava"], positions="rope_tie").found
    assert replace(CASES["llava"], positions="flat").found


def test_place_image_is_pure():
    first, _ = place_image("mrope", (2, 3))
    first += 1
    assert place_image("mrope", (2, 3))[0].tolist() == [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2]
