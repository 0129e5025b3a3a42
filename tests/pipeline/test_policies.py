"""Image policies: what transformers' processors make of an image, pixel by pixel and token by token."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    Gemma3Config,
    Gemma3Model,
    Idefics2Config,
    Idefics2Model,
    Idefics3Config,
    Idefics3Model,
    InternVLConfig,
    InternVLModel,
    LlavaConfig,
    LlavaModel,
    LlavaNextConfig,
    LlavaNextModel,
    LlavaOnevisionConfig,
    LlavaOnevisionModel,
)

from tests.helpers.processors import (
    CLIP_GREY,
    cases,
    inputs,
    picture,
    same,
    sizes,
)
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.images import POLICIES, Unrenderable
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.internvl import InternVL
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.patches import Patches
from vlmill.pipeline.images.pixels import encode_image
from vlmill.pipeline.images.policy import LONGEST
from vlmill.pipeline.images.pooled import Pooled
from vlmill.pipeline.images.tiles import Tiles

CASES = cases()
ODD = [
    (1, 1),
    (2, 3),
    (1, 700),
    (700, 1),
    (336, 336),
    (384, 384),
    (335, 337),
    (1009, 31),
    (640, 480),
    (1921, 1080),
]


@pytest.mark.parametrize("name", CASES)
def test_every_pixel_and_token_is_the_processors(name):
    case = CASES[name]
    for seed, size in enumerate([*ODD, *sizes(2 if name == "smolvlm" else 10, seed=7)]):
        try:
            (layout,) = case.policy.layout([size])
        except Unrenderable:
            continue
        image = picture(size, seed)
        made = case.ours(image, layout)
        assert same(made, inputs(case.processed(image))), size
        assert layout.tokens == case.tokens(size), size
        assert layout.tiles == len(made), size


@pytest.mark.parametrize("name", CASES)
def test_tokens_of_many_more_sizes_are_the_processors(name):
    case = CASES[name]
    for size in sizes(400, seed=3):
        try:
            (layout,) = case.policy.layout([size])
        except Unrenderable:
            continue
        assert layout.tokens == case.tokens(size), size


TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
VISION = {**TINY, "patch_size": 14, "image_size": 56}
TEXT = {**TINY, "model_type": "llama", "num_key_value_heads": 1, "vocab_size": 300}
LLAVA = {
    "vision_config": {**VISION, "model_type": "siglip_vision_model"},
    "text_config": TEXT,
    "image_token_index": 1,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
}
NEXT = AnyRes(side=56, pinpoints=((56, 112), (112, 56), (112, 112)))
CAPPED = AnyRes(side=56, pinpoints=((56, 56), (336, 56), (56, 336), (336, 336)), cap=2, many="letterbox")


def tiny_models():
    """Policies with a small model of the class that each is for."""
    resampler = {
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 1,
        "resampler_head_dim": 8,
    }
    perceiver = {**resampler, "num_key_value_heads": 1, "hidden_size": 8}
    idefics = {"vision_config": VISION, "text_config": TEXT, "image_token_id": 1}
    internvl = {**VISION, "image_size": [56, 56], "patch_size": [14, 14]}
    grids = [[list(pinpoint) for pinpoint in policy.pinpoints] for policy in (NEXT, CAPPED)]
    onevision = LlavaOnevisionConfig(**LLAVA, image_grid_pinpoints=grids[1], vision_aspect_ratio="anyres_max_2")
    towers = {"vision_config": {**VISION, "model_type": "siglip_vision_model"}, "text_config": {**TINY, "head_dim": 8}}
    gemma3 = Gemma3Config(**towers, mm_tokens_per_image=4, image_token_index=1)
    return [
        (Letterbox(side=56), LlavaModel(LlavaConfig(**LLAVA))),
        (NEXT, LlavaNextModel(LlavaNextConfig(**LLAVA, image_grid_pinpoints=grids[0]))),
        (CAPPED, LlavaOnevisionModel(onevision)),
        (
            NaViT(shortest=28, longest=56, latents=4),
            Idefics2Model(Idefics2Config(**idefics, perceiver_config=perceiver)),
        ),
        (Tiles(side=56, longest=112), Idefics3Model(Idefics3Config(**idefics, scale_factor=2))),
        (Pooled(side=56, pool=2), Gemma3Model(gemma3)),
        (InternVL(side=56, most=4), InternVLModel(InternVLConfig(**{**idefics, "vision_config": internvl}))),
    ]


def consumed(model, tiles, size):
    """How many visual tokens a model makes of an image's encoder inputs."""
    pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2) / 255 - 0.51  # never exactly 0, which is padding
    extra = {}
    if isinstance(model, (LlavaNextModel, LlavaOnevisionModel)):
        extra["image_sizes"] = torch.tensor([size[::-1]])
    if isinstance(model, (Idefics2Model, Idefics3Model)):
        pixels = pixels[None]
    with torch.no_grad():
        features = model.get_image_features(pixel_values=pixels, **extra).pooler_output
    return sum(tensor[..., 0].numel() for tensor in features)


@pytest.mark.parametrize("place", range(7))
def test_tokens_are_as_many_as_the_model_class_makes(place):
    policy, model = tiny_models()[place]
    for size in [(100, 40), (40, 100), (56, 56), (300, 20), (640, 480)]:
        (layout,) = policy.layout([size])
        tiles = policy.tiles(policy.render(picture(size, 0), layout), layout)
        assert consumed(model, tiles, size) == layout.tokens, (type(model), size)


def test_onevision_letterboxes_the_images_of_a_sample_that_has_several():
    case = CASES["llava_onevision"]
    pictures = [picture((300, 200), 0), picture((90, 700), 1)]
    layouts = case.policy.layout([image.size for image in pictures])
    processed = case.processor([pictures], return_tensors="np")["pixel_values"]
    theirs = [tiles[0].transpose(1, 2, 0) for tiles in processed.reshape(2, -1, 3, 384, 384)]
    assert [layout.tiles for layout in layouts] == [1, 1]
    assert [layout.tokens for layout in layouts] == [730, 730]
    assert same([case.ours(*pair)[0] for pair in zip(pictures, layouts, strict=True)], theirs)


def test_images_keep_their_resolution_and_nearly_their_shape_within_bounds():
    policy = Native(min_pixels=100 * 100, max_pixels=1000 * 1000)
    for size in sizes(300, seed=11):
        if max(size) / min(size) > 20:
            continue
        (layout,) = policy.layout([size])
        width, height = layout.canvas
        assert width % 28 == height % 28 == 0
        assert 100 * 100 <= width * height <= 1000 * 1000
        if 150 * 150 < size[0] * size[1] < 900 * 900:
            assert abs(width - size[0]) <= 14
            assert abs(height - size[1]) <= 14


def test_raw_patches_keep_every_pixel_of_an_image_within_bounds_and_fill_the_last_ones():
    policy, image = Patches(), picture((100, 47), 0)
    (layout,) = policy.layout([image.size])
    assert (layout.canvas, layout.grid, layout.tokens) == ((100, 47), (2, 4), 8)
    (tile,) = policy.tiles(policy.render(image, layout), layout)
    assert np.array_equal(tile[:47, :100], np.asarray(image))
    assert tile.shape == (60, 120, 3)
    assert (tile[47:] == 1).all()
    assert (tile[:, 100:] == 1).all()
    assert policy.layout([(1921, 1080)])[0].canvas == (1920, 1079)


def test_llava_next_tiles_each_image_whatever_stands_beside_it():
    policy = AnyRes()
    assert policy.layout([(640, 480), (100, 900)]) == (
        *policy.layout([(640, 480)]),
        *policy.layout([(100, 900)]),
    )


def test_the_grids_of_anyres_follow_its_side():
    assert AnyRes(side=336).pinpoints == ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    assert AnyRes(side=384).pinpoints == ((384, 768), (768, 384), (768, 768), (1152, 384), (384, 1152))
    assert AnyRes(side=384).layout([(1200, 400)])[0].grid == (1, 3)


def test_a_pool_that_leaves_patches_over_is_refused():
    with pytest.raises(RecipeError, match="pool: 3 x 3 patches become one token, and a side of 896 px has 64"):
        parse_block(Pooled, {"pool": 3}, "policies.p")


def test_ties_between_pinpoints_go_to_the_one_listed_first():
    wide = AnyRes(pinpoints=((336, 672), (672, 336)))
    assert wide.layout([(100, 100)])[0].grid == (1, 2)
    assert replace(wide, pinpoints=wide.pinpoints[::-1]).layout([(100, 100)])[0].grid == (2, 1)


def test_a_letterbox_stores_no_padding_that_no_pixel_of_the_image_reaches():
    policy = Letterbox(side=384)
    (layout,) = policy.layout([(1000, 100)])
    width, height = layout.canvas
    assert width == 384
    assert height < 60
    assert policy.render(picture((1000, 100), 0), layout)["canvas"].size == layout.canvas


def test_an_overview_that_equals_the_canvas_is_stored_once():
    policy = AnyRes(side=28, pinpoints=((28, 28), (56, 28)))
    (square,), (tall,) = policy.layout([(50, 50)]), policy.layout([(50, 100)])
    assert policy.render(picture((50, 50), 0), square).keys() == {"canvas"}
    assert policy.render(picture((50, 100), 0), tall).keys() == {"canvas", "overview"}


@pytest.mark.parametrize("kind", ["anyres", "internvl", "native", "navit", "pooled"])
def test_an_image_that_is_much_enlarged_is_stored_as_it_came_and_drawn_when_it_is_loaded(kind):
    policy = POLICIES[kind]()
    for side in (20, 40, 150, 189, 190, 300, 500, 900):
        image = picture((side, side), side)
        (layout,) = policy.layout([image.size])
        parts = policy.render(image, layout)
        if 4 * side * side <= layout.canvas[0] * layout.canvas[1]:
            assert parts == {"picture": image}
        else:
            assert "canvas" in parts


@pytest.mark.parametrize("kind", POLICIES)
def test_a_rule_that_is_longer_than_webp_can_hold_is_stored_as_its_canvas(kind):
    policy = POLICIES[kind]()
    try:
        (layout,) = policy.layout([(20_000, 2)])
    except Unrenderable:
        return  # the crop's
    parts = policy.render(picture((20_000, 2), 0), layout)
    assert all(encode_image(part, policy.quality)[0] == "webp" for part in parts.values())


@pytest.mark.parametrize(
    ("policy", "place"), [(AnyRes(), 0), (Tiles(), 12), (InternVL(), 12), (NaViT(split=True), 4), (NaViT(), None)]
)
@pytest.mark.parametrize("size", [(160, 120), (1200, 900)])
def test_a_layout_says_which_input_shows_the_whole_image(policy, place, size):
    image = Image.new("RGB", size)
    image.paste((250, 0, 0), (size[0] // 2, 0, *size))  # half black, half red
    (layout,) = policy.layout([size])
    tiles = policy.tiles(policy.render(image, layout), layout)
    assert layout.overview == (min(place, layout.tiles - 1) if place else place)
    if place is not None:
        whole = tiles[layout.overview][..., 0]
        assert whole[5, 5] < 9
        assert whole[-5, -5] > 240
        assert abs(whole.mean() - 125) < 2


def test_where_idefics2_quarters_what_has_no_quarters_the_policy_has_a_verdict():
    case = CASES["idefics2 split"]
    with pytest.raises(ZeroDivisionError):
        case.processed(picture((50, 1), 0))
    left, *_ = inputs(case.processed(picture((1, 50), 0)))
    assert not left.any()  # a black square made of nothing
    for size in [(50, 1), (1, 50), (1, 1)]:
        with pytest.raises(Unrenderable, match="no quarters"):
            case.policy.layout([size])


@pytest.mark.parametrize(
    ("policy", "size", "says"),
    [
        (NaViT(split=True), (1, 500), "no quarters"),
        (NaViT(split=True), (500, 1), "no quarters"),
        (Crop(), (1, 3000), "before the crop"),
        (Letterbox(), (LONGEST + 1, 10), "no side may be longer"),
        (Patches(), (1, 1081), "shrunk to fit into 1920 x 1080 px, would have no pixel of its shorter side left"),
        (Native(), (1005, 5), "more than 200 times the other"),
        (Native(max_pixels=1 << 24), (40_000, 400), "would be 40012 x 392 px; no side may be longer than 16383"),
    ],
)
def test_sizes_without_an_answer_are_refused_before_any_pixel(policy, size, says):
    with pytest.raises(Unrenderable, match=says):
        policy.layout([(100, 100), size])


shapes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@pytest.mark.parametrize("kind", POLICIES)
@settings(max_examples=60, deadline=None)
@given(several=st.lists(shapes, min_size=1, max_size=3))
def test_layouts_are_arithmetic_that_holds_for_any_size(kind, several):
    policy = POLICIES[kind]()
    try:
        layouts = policy.layout(several)
    except Unrenderable:
        return
    assert [layout.size for layout in layouts] == several
    for layout in layouts:
        rows, columns = layout.grid
        assert layout.tokens > 0
        assert (layout.tokens if kind == "patches" else layout.tiles) in {rows * columns, rows * columns + 1}
        assert min(layout.canvas) > 0
        assert max(layout.canvas) <= (16_383 if kind == "native" else 12 * 448)  # InternVL's
    assert policy.layout(several) == layouts


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("size", [(120, 40), (33, 500), (900, 700)])
def test_stored_parts_lose_nothing_and_are_as_large_as_the_layout_says(kind, size):
    policy = POLICIES[kind]()
    (layout,) = policy.layout([size])
    parts = policy.render(picture(size, 5), layout)
    stored = {part: encode_image(image, policy.quality) for part, image in parts.items()}
    assert {extension for extension, _ in stored.values()} == {"webp"}
    loaded = {part: Image.open(io.BytesIO(data)) for part, (_, data) in stored.items()}
    main = loaded.get("picture") or loaded["canvas"]
    assert main.size == (size if "picture" in loaded else layout.canvas)
    assert all(image.mode == "RGB" for image in loaded.values())
    assert same(policy.tiles(loaded, layout), policy.tiles(parts, layout))


def test_a_picture_of_few_colours_is_stored_with_a_palette():
    scan = picture((300, 200), 0).convert("L").convert("RGB")
    fastest = io.BytesIO()
    scan.save(fastest, "WEBP", lossless=True, method=0, quality=0)
    extension, data = encode_image(scan, None)
    assert extension == "webp"
    assert len(data) < 0.9 * len(fastest.getvalue())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(scan))


@pytest.mark.parametrize("kind", POLICIES)
def test_a_quality_stores_jpeg_within_a_bound_of_the_pixels(kind):
    size = (400, 300)
    policy = parse_block(POLICIES[kind], {"quality": 95}, "policies.test")
    (layout,) = policy.layout([size])
    gradient = np.add.outer(np.arange(300), np.arange(400))[..., None] * [0.3, 0.2, 0.1] % 256
    parts = policy.render(Image.fromarray(gradient.astype(np.uint8)), layout)
    loaded = {}
    for part, image in parts.items():
        extension, data = encode_image(image, policy.quality)
        assert extension == "jpg"
        loaded[part] = Image.open(io.BytesIO(data))
    pairs = zip(policy.tiles(loaded, layout), policy.tiles(parts, layout), strict=True)
    errors = [np.abs(ours.astype(int) - exact).mean() for ours, exact in pairs]
    assert max(errors) < 1.0


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        ("anyres", {"side": 300, "pinpoints": [[336, 672]]}, "multiples of side"),
        ("letterbox", {"quality": 101}, "less than or equal to 100"),
        ("tiles", {"sides": 364}, "did you mean 'side'"),
        ("native", {"min_pixels": 9000, "max_pixels": 8000}, "at least min_pixels .9000. and one visual token"),
        ("patches", {"width": 1000}, "width is 1000, no multiple of patch .30.; take 990"),
        ("native", {"patch": 16, "min_pixels": 1, "max_pixels": 1023}, "one visual token .32 x 32 px"),
    ],
)
def test_a_recipe_that_makes_no_sense_says_what_does(kind, values, says):
    with pytest.raises(RecipeError, match=says):
        parse_block(POLICIES[kind], values, "policies.test")


def test_smolvlm_and_idefics3_need_no_overview_of_a_single_tile():
    (layout,) = Tiles(longest=364).layout([(200, 200)])
    assert (layout.tiles, layout.grid, layout.tokens) == (1, (1, 1), 169)


def test_clip_grey_is_what_llava_pads_with():
    case = CASES["llava"]
    square = case.ours(picture((400, 10), 0), case.policy.layout([(400, 10)])[0])[0]
    assert tuple(square[0, 0]) == CLIP_GREY
