"""What connectors and the upsampler compute, beside plain forms of the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from vlmill.train.families.exported.connectors import CONNECTORS
from vlmill.train.families.exported.upsampler import PLACES, RADIUS, Doubling, Upsampler

SETTINGS = {"side": 2, "factor": 2, "latents": 3, "depth": 1}


def features(seed=0, across=4, width=6):
    return torch.randn(2, across**2, width, generator=torch.Generator().manual_seed(seed))


def test_pooling_is_the_mean_of_each_square():
    given = features()
    pooled = CONNECTORS["pool"](6, 4, SETTINGS)(given)
    corner = given.view(2, 4, 4, 6)[:, :2, 2:].mean((1, 2))
    torch.testing.assert_close(pooled[:, 1], corner)


def test_bilinear_at_half_the_side_is_pooling_and_between_it_weighs_neighbours():
    given = features()
    half = CONNECTORS["bilinear"](6, 4, SETTINGS)(given)
    torch.testing.assert_close(half, CONNECTORS["pool"](6, 4, SETTINGS)(given))
    third = CONNECTORS["bilinear"](6, 4, SETTINGS | {"side": 3})(given).view(2, 3, 3, 6)
    grid = given.view(2, 4, 4, 6)
    at = (grid[:, 0] * 5 + grid[:, 1]) / 6  # the middle of the first of 3 rows lies 1/6 behind that of the first of 4
    torch.testing.assert_close(third[:, 0, 1], (at[:, 1] + at[:, 2]) / 2)


def test_shuffled_patches_lie_one_behind_the_other_in_their_token():
    given = features()
    shuffled = CONNECTORS["shuffle"](6, 4, SETTINGS)(given)
    assert shuffled.shape == (2, 4, 24)
    block = given.view(2, 4, 4, 6)[:, 2:, :2].flatten(1)
    assert torch.equal(shuffled[:, 2].sort().values, block.sort().values)


def normalise(square, norm):
    """Over the channels of each place."""
    return functional.layer_norm(square.movedim(1, -1), square.shape[1:2], norm.weight, norm.bias).movedim(-1, 1)


def test_ldp_is_two_blocks_of_mobilenet_as_mobilevlm_sets_them_up():
    """torchvision's InvertedResidual with LayerNormAct2d, squeeze and excitation in eights, and no widening."""
    torch.manual_seed(0)
    width, given = 48, features(across=5, width=48)
    module = CONNECTORS["ldp"](width, 5, SETTINGS)
    square = given.transpose(1, 2).view(2, width, 5, 5)
    for block, stride in zip(module.blocks, (1, 2), strict=True):
        assert block.squeeze.out_channels == 16  # a quarter of 48, in eights
        made = functional.conv2d(square, block.look.weight, stride=stride, padding=1, groups=width)
        made = functional.hardswish(normalise(made, block.norm_look.norm))
        gate = functional.conv2d(functional.adaptive_avg_pool2d(made, 1), block.squeeze.weight, block.squeeze.bias)
        gate = functional.conv2d(gate.relu(), block.excite.weight, block.excite.bias)
        made = functional.conv2d(made * functional.hardsigmoid(gate), block.end.weight)
        made = normalise(made, block.norm_end.norm)
        square = square + made if stride == 1 else made
    assert square.shape == (2, width, 3, 3)
    torch.testing.assert_close(module(given), square.flatten(2).transpose(1, 2))


def test_ldp_v2_is_pooling_to_which_a_depthwise_convolution_is_added():
    torch.manual_seed(0)
    given = features()
    module = CONNECTORS["ldp_v2"](6, 4, SETTINGS)
    pooled = CONNECTORS["pool"](6, 4, SETTINGS)(given)
    square = pooled.transpose(1, 2).view(2, 6, 2, 2)
    added = functional.conv2d(square, module.positions.weight, module.positions.bias, padding=1, groups=6)
    torch.testing.assert_close(module(given), pooled + added.flatten(2).transpose(1, 2))
    with torch.no_grad():
        module.positions.weight.zero_()
        module.positions.bias.zero_()
    assert torch.equal(module(given), pooled)


@pytest.mark.parametrize("kind", ["perceiver", "c_abstractor"])
def test_every_token_depends_on_its_own_tile_alone_and_on_all_of_it(kind):
    torch.manual_seed(0)
    module, given = CONNECTORS[kind](6, 4, SETTINGS), features().requires_grad_()
    made = module(given)
    assert made.shape == (2, {"perceiver": 3, "c_abstractor": 4}[kind], 6)
    made[0, 0, 0].backward()
    assert given.grad[0].abs().sum(1).min() > 0
    assert not given.grad[1].any()


def plain(doubling, square, picture):
    """Joint bilateral upsampling by unfolded neighbourhoods, which hold PLACES times the features."""
    rows, columns = (2 * length for length in square.shape[2:])
    picture = functional.adaptive_avg_pool2d(picture, (rows, columns))

    def unfold(values):
        padded = functional.pad(values, [RADIUS] * 4, mode="reflect")
        return functional.unfold(padded, 2 * RADIUS + 1).view(len(values), -1, PLACES, rows, columns)

    keys = doubling.keys(picture)
    likeness = (doubling.temperature.exp() * (unfold(keys) * keys[:, :, None]).sum(1)).softmax(1)
    steps = torch.linspace(-1, 1, 2 * RADIUS + 1)
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    near = torch.exp(-(down**2 + right**2) / (2 * doubling.spread**2)).reshape(1, PLACES, 1, 1)
    kernel = likeness * near
    kernel = kernel / kernel.sum(1, keepdim=True)
    kernel = kernel + 0.1 * doubling.correct(torch.cat([kernel, picture], dim=1))
    enlarged = functional.interpolate(square, (rows, columns), mode="bicubic")
    return (unfold(enlarged) * kernel[:, None]).sum(2)


def test_upsampling_is_that_of_unfolded_neighbourhoods():
    torch.manual_seed(0)
    doubling, square, picture = Doubling(), torch.randn(2, 5, 3, 3), torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(doubling(square, picture), plain(doubling, square, picture), atol=1e-5, rtol=1e-4)


def test_features_keep_to_edges_of_the_picture():
    doubling = Doubling()
    doubling.keys = torch.nn.Identity()  # colours themselves: those of one side are alike, of both sides opposite
    for weights in doubling.correct.parameters():
        torch.nn.init.zeros_(weights)
    picture, square = torch.ones(1, 3, 16, 16), torch.zeros(1, 1, 4, 4)
    picture[..., 8:], square[..., :2] = -1.0, 1.0  # both change in the middle
    flat = doubling(square, torch.zeros_like(picture))[0, 0, 3]
    sharp = doubling(square, picture)[0, 0, 3]
    assert flat[3] - flat[4] < 0.3
    assert sharp[3] - sharp[4] > 0.6


def test_the_same_features_everywhere_stay_the_same():
    torch.manual_seed(0)
    upsampler = Upsampler(6, 4)
    with torch.no_grad():
        for name, weights in upsampler.named_parameters():
            if "correct" in name:
                weights.zero_()
    made = upsampler(torch.ones(1, 9, 6), torch.randn(1, 3, 24, 24))
    torch.testing.assert_close(made, torch.ones(1, 144, 6))


def test_no_array_of_all_neighbourhoods_is_kept_for_the_backward_pass():
    torch.manual_seed(0)
    width, across = 256, 8
    upsampler, held = Upsampler(width, 2), {}

    def keep(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor  # so that none is freed
        return tensor

    given = torch.randn(1, across**2, width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = upsampler(given, torch.randn(1, 3, 56, 56))
    kept = sum(size for size, _ in held.values())
    assert kept < 8 * made.numel() * made.element_size() < PLACES * made.numel() * made.element_size()
