"""Models and losses: what isolates packed documents, what learns, how weights go from stage to stage."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.stages import ANYRES, LETTERBOX, model_settings, write_tokenizer
from vlmill.pipeline.chat.encode import FORMATS, IGNORE, get_mark_id, load_tokenizer
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.train.batch import Document, pad_sequences
from vlmill.train.families import find_class, find_family
from vlmill.train.model import (
    compute_features,
    compute_token_losses,
    create_model,
    load_weights,
    make_optimizer,
    save_weights,
    scale_rate,
    set_rates,
)
from vlmill.train.settings import ModelSettings, Training, read_training_settings
from vlmill.train.validate import validate_training

CHAT = FORMATS["vlmill"]
CPU = torch.device("cpu")
CLIP_FILL = (122, 116, 104)
COMBINATIONS = {
    "llava, SigLIP": (model_settings("llava"), LETTERBOX),
    "llava_next, SigLIP": (model_settings("llava_next"), ANYRES),
    "llava_next, CLIP": (model_settings("llava_next", "clip"), ANYRES),
    "llava, CLIP": (model_settings("llava", "clip"), Letterbox(side=28, patch=14, fill=CLIP_FILL)),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"), CHAT)


def training(**changes):
    return parse_block(
        Training, {"steps": 10, "learning_rate": {"text": 1e-3, "vision": 1e-4, "projector": 1e-2}, **changes}, "train"
    )


def document(policy, tokenizer, seed, sizes=((30, 20),)):
    """Random text around random images; everything but images and the first token is supervised."""
    rng = np.random.default_rng(seed)
    layouts = policy.layout(list(sizes))
    image, words = get_mark_id(tokenizer, CHAT.image), lambda: rng.integers(0, 200, 6).tolist()
    ids = [get_mark_id(tokenizer, CHAT.bos), *words()]
    for layout in layouts:
        ids += [image] * layout.tokens + words()
    labels = [IGNORE if token == image or not place else token for place, token in enumerate(ids)]
    tiles = tuple(
        list(rng.integers(0, 256, (layout.tiles, policy.side, policy.side, 3), np.uint8)) for layout in layouts
    )
    return Document(seed, ids, labels, tiles, layouts)


def logits(model, family, rows):
    batch = pad_sequences(rows, 0)
    with torch.no_grad():
        return model.get_output_embeddings()(compute_features(model, family, batch))


# -- packing


def test_a_cache_or_a_mask_would_contaminate_packed_documents(tokenizer):
    """Why train/model.py passes neither: should this fail, transformers has changed and the trap is gone."""
    family = find_family(*COMBINATIONS["llava, SigLIP"])
    model = create_model(family, tokenizer, CHAT, 0).eval()
    first, second = document(LETTERBOX, tokenizer, 1, ()), document(LETTERBOX, tokenizer, 2, ())
    batch = pad_sequences([[first, second]], 0)
    alone = logits(model, family, [[second]])[0]
    for trap in ({"use_cache": True}, {"use_cache": False, "attention_mask": torch.ones_like(batch.ids)}):
        seen = model(input_ids=batch.ids, position_ids=batch.positions, **trap).logits[0, len(first.ids) :]
        assert (seen - alone).abs().max() > 1e-3


# -- losses


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_loss_of_one_document_is_transformers_own(tokenizer, name):
    ours, policy = COMBINATIONS[name]
    family = find_family(ours, policy)
    model = create_model(family, tokenizer, CHAT, 0)
    one = document(policy, tokenizer, 4, ((30, 20), (60, 25)))
    batch = pad_sequences([[one]], 0)
    losses, sources = compute_token_losses(model, family, batch, CPU, torch.float32)
    theirs = model(input_ids=batch.ids, labels=batch.labels, use_cache=False, **family.inputs(model, batch)).loss
    assert losses.mean().item() == pytest.approx(theirs.item(), abs=1e-6)
    assert sources.tolist() == [4] * batch.supervised


def test_each_supervised_token_is_charged_to_its_source(tokenizer):
    family = find_family(*COMBINATIONS["llava, SigLIP"])
    model = create_model(family, tokenizer, CHAT, 0)
    rows = [[document(LETTERBOX, tokenizer, 1), document(LETTERBOX, tokenizer, 2)], [document(LETTERBOX, tokenizer, 2)]]
    losses, sources = compute_token_losses(model, family, pad_sequences(rows, 0), CPU, torch.float32)
    assert sources.tolist() == [
        source for row in rows for one in row for source in [one.source] * (len(one.labels) - one.labels.count(IGNORE))
    ]
    alone, _ = compute_token_losses(model, family, pad_sequences([[rows[0][0]]], 0), CPU, torch.float32)
    torch.testing.assert_close(losses[sources == 1], alone)


# -- families


def test_a_policy_that_a_family_cannot_take_is_refused_with_the_families_that_can():
    with pytest.raises(
        RecipeError,
        match="llava takes images of policies of kind letterbox, resize, crop, not anyres; families that take anyres: "
        "llava_next, llava_onevision",
    ):
        find_class(model_settings("llava"), ANYRES)
    with pytest.raises(RecipeError, match="did you mean 'llava_next'"):
        find_class(model_settings("llavanext"), ANYRES)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (AnyRes(side=56, patch=14, pinpoints=((56, 112),)), "side 56, and .* takes 28"),
        (AnyRes(side=28, patch=7, pinpoints=((28, 56),)), "patch 7, and .* takes 14"),
        (Letterbox(side=28, patch=14, fill=CLIP_FILL), "fill .122, 116, 104., and .* takes .127, 127, 127."),
        (AnyRes(side=28, patch=14, pinpoints=((28, 56),), cap=4), "cap"),
    ],
)
def test_a_policy_that_does_not_fit_the_vision_tower_is_refused(policy, said):
    with pytest.raises(RecipeError, match=said):
        find_family(model_settings(), policy)


def test_pretrained_towers_come_from_local_folders(tokenizer, tmp_path):
    family = find_family(model_settings(), ANYRES)
    before = create_model(family, tokenizer, CHAT, 5)
    before.model.vision_tower.save_pretrained(tmp_path / "vision")
    from transformers import LlamaForCausalLM

    text = LlamaForCausalLM(before.config.text_config)
    text.save_pretrained(tmp_path / "text")
    ours = {
        "family": "llava_next",
        **{name: {"kind": "pretrained", "path": str(tmp_path / name)} for name in ("vision", "text")},
    }
    after = create_model(find_family(parse_block(ModelSettings, ours, "model"), ANYRES), tokenizer, CHAT, 6)
    for name, weights in before.model.vision_tower.state_dict().items():
        torch.testing.assert_close(after.model.vision_tower.state_dict()[name], weights)
    torch.testing.assert_close(after.lm_head.weight, text.lm_head.weight)
    assert not torch.equal(
        after.model.multi_modal_projector.linear_1.weight, before.model.multi_modal_projector.linear_1.weight
    )


# -- weights from one stage to the next


def test_a_seed_decides_the_new_weights_and_no_other_random_number(tokenizer):
    family = find_family(model_settings(), ANYRES)
    torch.manual_seed(1)
    first = create_model(family, tokenizer, CHAT, 0)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    torch.testing.assert_close(torch.rand(1), drawn)  # making a model has drawn nothing
    second = create_model(family, tokenizer, CHAT, 0)
    assert all(
        torch.equal(one, other)
        for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_stage_may_go_from_letterbox_to_anyres_and_only_the_newline_is_new(tokenizer, tmp_path):
    before = create_model(find_family(model_settings(), LETTERBOX), tokenizer, CHAT, 0)
    save_weights(before, tmp_path)
    after = create_model(find_family(model_settings(), ANYRES), tokenizer, CHAT, 1, start_from=tmp_path)
    known = before.state_dict()
    assert {name for name in after.state_dict() if name not in known} == {"model.image_newline"}
    assert all(torch.equal(after.state_dict()[name], weights) for name, weights in known.items())


def test_whoever_may_read_other_files_may_read_the_weights(tokenizer, tmp_path):
    save_weights(create_model(find_family(model_settings(), LETTERBOX), tokenizer, CHAT, 0), tmp_path)
    (tmp_path / "other").touch()
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "other").stat().st_mode}


def test_weights_of_another_model_are_refused(tokenizer, tmp_path):
    save_weights(create_model(find_family(model_settings(), ANYRES), tokenizer, CHAT, 0), tmp_path)
    with pytest.raises(StoreError, match="image_newline.*not back"):
        create_model(find_family(model_settings(), LETTERBOX), tokenizer, CHAT, 0, start_from=tmp_path)
    other = parse_block(
        ModelSettings,
        {
            "family": "llava_next",
            "vision": vars(model_settings().vision),
            "text": {"kind": "llama", "hidden_size": 32, "layers": 2, "heads": 2},
        },
        "model",
    )
    with pytest.raises(StoreError, match="another model"):
        load_weights(create_model(find_family(other, ANYRES), tokenizer, CHAT, 0), tmp_path)


# -- what learns, and how fast


def test_parts_without_a_learning_rate_are_frozen(tokenizer):
    family = find_family(model_settings(), ANYRES)
    model = create_model(family, tokenizer, CHAT, 0)
    ours = training(learning_rate={"projector": 1e-2}, weight_decay=0.1)
    optimizing = make_optimizer(model, family, ours)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    losses, _ = compute_token_losses(
        model, family, pad_sequences([[document(ANYRES, tokenizer, 1)]], 0), CPU, torch.float32
    )
    losses.mean().backward()
    set_rates(optimizing, 1.0)
    optimizing.step()
    changed = {name for name, weights in model.state_dict().items() if not torch.equal(weights, before[name])}
    assert {family.component(name) for name in changed} == {"projector"}


def test_norms_biases_and_the_newline_do_not_decay(tokenizer):
    family = find_family(model_settings(), ANYRES)
    model = create_model(family, tokenizer, CHAT, 0)
    groups = make_optimizer(model, family, training(weight_decay=0.1)).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in groups:
        for name in (names[parameter] for parameter in group["params"]):
            single = name.endswith(("bias", "image_newline", "class_embedding")) or "norm" in name
            assert group["weight_decay"] == (0.0 if single else 0.1)
            assert group["component"] == family.component(name)


def test_rates_rise_to_the_peak_and_fall_to_nothing():
    ours = training(warm_up=4)
    factors = [scale_rate(step, 20, ours) for step in range(20)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(before > after for before, after in pairwise(factors[4:]))
    assert scale_rate(20, 20, ours) == pytest.approx(0)
    assert [scale_rate(step, 20, training(warm_up=2, schedule="constant")) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


# -- settings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": None}, "either steps or epochs$"),
        ({"epochs": 2}, "not both: set the other to null, such as train.epochs: null"),
        ({"learning_rate": {}}, "at least one of projector, vision and text"),
        ({"learning_rate": {"head": 1e-3}}, "'projector', 'vision' or 'text'"),
        ({"sequences": 6, "accumulation": 4}, "6 cannot be cut into 4"),
        ({"warmup": 3}, "did you mean 'warm_up'"),
        ({"loss": "all"}, "'answers' or 'text'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(RecipeError, match=said):
        training(**changes)


def test_yaml_may_write_a_rate_without_a_point():
    import yaml

    read = yaml.safe_load("steps: 1\nlearning_rate: {text: 1e-3, vision: 2e-4}")  # PyYAML reads texts here
    assert parse_block(Training, read, "train").learning_rate == {"text": 1e-3, "vision": 2e-4}


class Recipe:
    """As much of a recipe as the check looks at."""

    def __init__(self, model):
        self.model, self.chat, self.policies, self.scale = model, "vlmill", {"small": ANYRES}, 1.0
        mixture, train = {"shares": {"quiz": 1}, "sequence_length": 60}, {"steps": 1, "learning_rate": {"text": 1e-3}}
        self.stages = [SimpleNamespace(name="align", policy="small", mixture=mixture, train=train)]

    def find_members(self, name, *_):
        """Every entry is a source."""
        return (name,)


def test_a_recipe_is_checked_before_anything_is_built():
    towers = {name: {"kind": "pretrained", "path": name} for name in ("vision", "text")}
    validate_training(Recipe({"family": "llava_next", **towers}))
    with pytest.raises(RecipeError, match="families that take anyres"):
        validate_training(Recipe({"family": "llava", **towers}))
    with pytest.raises(RecipeError, match="stages.align.train.step: unknown key"):
        read_training_settings(SimpleNamespace(name="align", train={"step": 1}), 1.0)
    validate_training(Recipe({}))  # a recipe that only builds needs no model
