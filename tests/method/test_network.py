from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ubend.errors import InputError
from ubend.method import geometry
from ubend.method.network import (
    NetworkConfig,
    UNet,
    UpConvolution2d,
    count_parameters,
    for_prediction,
    interpolated,
    layer_table,
    refuse_tile_statistics,
    tiling_cost,
)

SMALL = NetworkConfig(width=3, depth=2, classes=3, dropout=0.0)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NetworkConfig(width=16), 1_940_834),
        (NetworkConfig(width=8), 485_682),
        (NetworkConfig(width=8, in_channels=3, classes=5, depth=3), None),
        (NetworkConfig(width=8, normalisation="batch", padding="same"), None),
        (NetworkConfig(width=8, up_relu=True, wide_last_up=True), None),
        (NetworkConfig(width=8, depth=5, coarse=1), 485_682),
        (NetworkConfig(width=8, depth=4, coarse=3, wide_last_up=True), None),
    ],
)
def test_the_table_counts_what_the_network_has(config, expected):
    counted = count_parameters(config)
    assert counted == parameters(UNet(config))
    assert expected is None or counted == expected


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("extra", [0, 1, 3])
@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_unpadded_output_size(depth, extra, coarse):
    size = geometry.smallest_input_for(1, depth + coarse) + extra * 2 ** (depth + coarse)
    other = size + 2 ** (depth + coarse)
    config = NetworkConfig(width=2, depth=depth + coarse, coarse=coarse)
    out, depth = UNet(config)(torch.zeros(2, 1, size, other)), config.depth
    assert out.shape == (2, 2, geometry.output_size(size, depth), geometry.output_size(other, depth))


def test_padded_output_has_the_size_of_the_input():
    for coarse in (0, 1):
        net = UNet(replace(SMALL, padding="same", coarse=coarse))
        assert net(torch.zeros(1, 1, 32, 48)).shape == (1, 3, 32, 48)


def test_a_wrong_size_is_refused_with_the_nearest():
    net = UNet(NetworkConfig(width=2))
    with pytest.raises(
        InputError, match=r"570×572 px does not fit .* depth 4; the nearest sizes to 570 are 556 and 572"
    ):
        net(torch.zeros(1, 1, 570, 572))
    padded = UNet(replace(SMALL, padding="same"))
    with pytest.raises(InputError, match="multiples of 4; the nearest sizes to 30 are 28 and 32"):
        padded(torch.zeros(1, 1, 32, 30))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 0}, "width from 1 to 4096, not 0"),
        ({"classes": 1}, "classes from 2 to 4096"),
        ({"padding": "valid"}, "padding of a network is 'none' or 'same', not 'valid'"),
        ({"dropout": 1.0}, "dropout is a probability"),
        ({"dimensions": 3}, "dimensions of a network is 2"),
        ({"coarse": 4}, "coarse of a network is from 0 to depth − 1, 3, not 4"),
        ({"coarse": -1}, "not -1"),
        ({"coarse": 0.5}, "not 0.5"),
    ],
)
def test_a_config_that_cannot_be_built(wrong, message):
    with pytest.raises(InputError, match=message):
        NetworkConfig(**wrong)


def test_initial_weights_are_gaussian_with_variance_two_over_incoming():
    net = UNet(NetworkConfig(width=16, depth=2), generator=torch.Generator().manual_seed(0))
    weight = net.bottom.second.weight.detach()  # 64 -> 64 channels: N = 9 * 64 = 576
    assert float(weight.std()) == pytest.approx(np.sqrt(2 / 576), rel=0.02)
    assert abs(float(weight.mean())) < 0.002
    assert not net.bottom.second.bias.any()
    up = net.up[1].weight.detach()  # (64, 32, 2, 2): the Caffe filler counts 4 * 32
    assert float(up.std()) == pytest.approx(np.sqrt(2 / 128), rel=0.05)


def test_the_same_generator_gives_the_same_network():
    one, two = (UNet(SMALL, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@torch.no_grad()
def test_receptive_field_by_perturbing_the_input():
    """Change one input column after the other: exactly those of `receptive_field` matter."""
    net = UNet(replace(SMALL, width=2)).eval()
    for parameter in net.parameters():
        parameter.abs_()  # so that no path is blocked by a ReLU
    size = geometry.smallest_input_for(8, 2)
    image = torch.rand(8, 1, size, size, generator=torch.Generator().manual_seed(0))  # each takes other maxima
    with torch.enable_grad():
        image.requires_grad_()
        widths = set()
        for position in range(4):
            middle = net(image)[:, 0, 4, position].sum()
            (gradient,) = torch.autograd.grad(middle, image)
            columns = torch.nonzero(gradient.abs().sum((0, 1, 2)))
            widths.add(int(columns.max() - columns.min()) + 1)
    assert tuple(sorted(widths)) == geometry.receptive_field(2)


def test_dropout_sits_at_the_end_of_the_contracting_path():
    torch.manual_seed(0)
    net = UNet(NetworkConfig(width=2, depth=2, dropout=0.5))
    dropped = []
    net.dropout.register_forward_hook(lambda module, args, out: dropped.append(out.shape[1]))
    net(torch.zeros(1, 1, 60, 60))
    assert dropped == [4, 8]  # the lowest two levels


@pytest.mark.parametrize("coarse", [0, 1])
def test_prediction_network_equals_the_padded_one_far_from_the_border(coarse):
    torch.manual_seed(0)
    net = UNet(NetworkConfig(width=4, depth=2, coarse=coarse, padding="same", normalisation="batch", dropout=0.5))
    for _ in range(3):
        net(torch.randn(4, 1, 32, 32) * 2 + 1)  # batch statistics move away from 0 and 1
    net.eval()
    image = torch.randn(1, 1, 148, 148)
    phase = 2  # where the unpadded network begins to pool, modulo 2^depth: the padded one pools from its first pixel
    plain = for_prediction(net)
    assert plain.config.padding == "none"
    assert plain.config.normalisation == "none"
    with torch.no_grad():
        inner, whole = plain(image), net(image[..., phase:-phase, phase:-phase])
    cut = geometry.halo(2) - phase
    edge = 24  # what the padding reaches: the receptive field from the border
    np.testing.assert_allclose(
        inner[..., edge:-edge, edge:-edge], whole[..., cut + edge : -cut - edge, cut + edge : -cut - edge], atol=2e-5
    )


def test_interpolation_is_that_of_torch_with_its_gradient():
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = interpolated(ours), functional.interpolate(theirs, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(found, expected)
    for result in (found, expected):
        (result**2).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_coarse_network_is_the_same_network_on_means_of_pixels():
    fine = UNet(replace(SMALL, padding="same"), generator=torch.Generator().manual_seed(1)).eval()
    coarse = UNet(replace(SMALL, padding="same", depth=3, coarse=1), generator=torch.Generator().manual_seed(1)).eval()
    image = torch.rand(1, 1, 64, 48, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        averaged = functional.avg_pool2d(image, 2)
        scores = fine(averaged)
        assert torch.equal(coarse(image), interpolated(scores))
        assert torch.equal(coarse(averaged, averaged=True), scores)
    assert coarse.config.core == fine.config


def test_a_coarse_network_costs_that_of_the_pixels_it_sees():
    fine = sum(layer.macs for layer in layer_table(replace(SMALL, padding="same"), 64))
    coarse = layer_table(replace(SMALL, padding="same", depth=3, coarse=1), 128)
    assert sum(layer.macs for layer in coarse) == fine
    assert (coarse[0].name, coarse[0].size_in, coarse[-1].name) == ("conv_d1a-b", 64, "conv_u1d-score")


def test_an_up_convolution_is_the_transposed_one_with_its_gradient():
    torch.manual_seed(0)
    ours, theirs = UpConvolution2d(6, 3), nn.ConvTranspose2d(6, 3, 2, stride=2)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for layer in (ours, theirs):
        x = torch.linspace(-1, 1, 6 * 4 * 5).reshape(1, 6, 4, 5).requires_grad_()
        y = layer(x)
        (y * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
        results.append((y, x.grad, layer.weight.grad, layer.bias.grad))
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), results[0][0])


def test_layer_names_and_sizes_of_a_small_network():
    table = layer_table(NetworkConfig(width=2, depth=1), size=20)
    assert [(row.name, row.inputs, row.outputs, row.size_in, row.size_out, row.parameters) for row in table] == [
        ("conv_d0a-b", 1, 2, 20, 18, 20),
        ("conv_d0b-c", 2, 2, 18, 16, 38),
        ("conv_d1a-b", 2, 4, 8, 6, 76),
        ("conv_d1b-c", 4, 4, 6, 4, 148),
        ("upconv_d1c_u0a", 4, 2, 4, 8, 34),
        ("conv_u0b-c", 4, 2, 8, 6, 74),
        ("conv_u0c-d", 2, 2, 6, 4, 38),
        ("conv_u0d-score", 2, 2, 4, 4, 6),
    ]


# tiles


class Foreign(nn.Module):
    """A network of somebody else, with the layer in question deep inside."""

    def __init__(self, layer):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 8, 3), layer, nn.ReLU()), nn.Conv2d(8, 2, 1)])


@pytest.mark.parametrize("layer", [
    nn.InstanceNorm2d(8), nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8), nn.LayerNorm([8, 20, 20]),
    nn.BatchNorm2d(8, track_running_stats=False), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1),
])  # fmt: skip
def test_statistics_of_a_tile_are_refused(layer):
    name = rf"layer blocks\.0\.1 \({type(layer).__name__}\) takes statistics over the pixels of each tile"
    with pytest.raises(InputError, match=name):
        refuse_tile_statistics(Foreign(layer))


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(8), nn.Identity(), nn.Dropout(), nn.MaxPool2d(2)])
def test_other_layers_are_not_refused(layer):
    refuse_tile_statistics(Foreign(layer).eval())


def test_a_network_with_another_normalisation_is_not_silently_changed():
    net = UNet(NetworkConfig(width=2, depth=1, normalisation="batch"))
    net.down[0].first_norm = nn.InstanceNorm2d(2)
    with pytest.raises(InputError, match=r"layer down\.0\.first_norm \(InstanceNorm2d\) takes statistics"):
        for_prediction(net)


@pytest.mark.parametrize(("size", "cost"), [
    (252, 4.46), (380, 1.82), (444, 1.58), (572, 1.362), (700, 1.262), (828, 1.205), (1020, 1.155), (1532, 1.093),
    (2044, 1.067), (4092, 1.031),
])  # fmt: skip
def test_what_tiles_cost(size, cost):
    assert tiling_cost(NetworkConfig(), size) == pytest.approx(cost, abs=6e-3)
    assert tiling_cost(NetworkConfig(padding="same"), size + 15) == tiling_cost(NetworkConfig(), size)


def test_threads_change_no_bit():
    net = for_prediction(UNet(NetworkConfig(width=4, depth=2), generator=torch.Generator().manual_seed(0)))
    image = torch.randn(1, 1, 124, 124, generator=torch.Generator().manual_seed(1))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with torch.inference_mode():
                found.append(net(image))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
