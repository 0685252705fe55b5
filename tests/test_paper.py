"""Every number of the 2015 paper that a network, a weight or a deformation can be held to."""

import pytest
from torch import nn

from ubend.method import geometry
from ubend.method.network import NetworkConfig, UNet, count_parameters, layer_table

# name, in, out, kernel, size in, size out, parameters, millions of multiplications with addition
FIGURE_1 = [
    ("conv_d0a-b", 1, 64, 3, 572, 570, 640, 187.142),
    ("conv_d0b-c", 64, 64, 3, 570, 568, 36_928, 11_893.211),
    ("conv_d1a-b", 64, 128, 3, 284, 282, 73_856, 5_863.145),
    ("conv_d1b-c", 128, 128, 3, 282, 280, 147_584, 11_560.550),
    ("conv_d2a-b", 128, 256, 3, 140, 138, 295_168, 5_616.304),
    ("conv_d2b-c", 256, 256, 3, 138, 136, 590_080, 10_909.385),
    ("conv_d3a-b", 256, 512, 3, 68, 66, 1_180_160, 5_138.547),
    ("conv_d3b-c", 512, 512, 3, 66, 64, 2_359_808, 9_663.676),
    ("conv_d4a-b", 512, 1024, 3, 32, 30, 4_719_616, 4_246.733),
    ("conv_d4b-c", 1024, 1024, 3, 30, 28, 9_438_208, 7_398.752),
    ("upconv_d4c_u3a", 1024, 512, 2, 28, 56, 2_097_664, 1_644.167),
    ("conv_u3b-c", 1024, 512, 3, 56, 54, 4_719_104, 13_759.414),
    ("conv_u3c-d", 512, 512, 3, 54, 52, 2_359_808, 6_379.536),
    ("upconv_u3d_u2a", 512, 256, 2, 52, 104, 524_544, 1_417.675),
    ("conv_u2b-c", 512, 256, 3, 104, 102, 1_179_904, 12_273.058),
    ("conv_u2c-d", 256, 256, 3, 102, 100, 590_080, 5_898.240),
    ("upconv_u2d_u1a", 256, 128, 2, 100, 200, 131_200, 1_310.720),
    ("conv_u1b-c", 256, 128, 3, 200, 198, 295_040, 11_561.730),
    ("conv_u1c-d", 128, 128, 3, 198, 196, 147_584, 5_664.670),
    ("upconv_u1d_u0a", 128, 64, 2, 196, 392, 32_832, 1_258.815),
    ("conv_u0b-c", 128, 64, 3, 392, 390, 73_792, 11_214.029),
    ("conv_u0c-d", 64, 64, 3, 390, 388, 36_928, 5_549.654),
    ("conv_u0d-score", 64, 2, 1, 388, 388, 130, 19.270),
]


def test_figure_1_layer_by_layer():
    rows = [
        (r.name, r.inputs, r.outputs, r.kernel, r.size_in, r.size_out, r.parameters, round(r.macs / 1e6, 3))
        for r in layer_table(NetworkConfig())
    ]
    assert rows == FIGURE_1
    assert len(rows) == 23  # "In total the network has 23 convolutional layers"


def test_the_network_has_the_parameters_of_its_table():
    net = UNet()
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert sorted(sum(p.numel() for p in m.parameters()) for m in convolutions) == sorted(r[6] for r in FIGURE_1)
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    assert sum(p.numel() for p in net.parameters() if p.ndim == 1) == 6_850


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (NetworkConfig(), 31_030_658),
        (NetworkConfig(in_channels=3), 31_031_810),
        (NetworkConfig.released_2015(), 31_100_354),
        (NetworkConfig(normalisation="batch"), 31_036_546),
        (NetworkConfig(width=32), 7_759_554),
        (NetworkConfig(width=16), 1_940_834),
        (NetworkConfig(width=8), 485_682),
    ],
)
def test_parameter_counts_that_people_quote(config, parameters):
    assert count_parameters(config) == parameters


def test_cost_of_one_forward_pass():
    assert sum(row.macs for row in layer_table(NetworkConfig())) == 150_428_424_448
    for k in (8, 9, 32, 129):
        polynomial = 187_875_328 * k**2 - 1_501_261_824 * k + 6_084_466_944
        assert sum(row.macs for row in layer_table(NetworkConfig(), 16 * k + 60)) == polynomial


def test_padded_network_costs_733_888_multiplications_a_pixel():
    assert sum(row.macs for row in layer_table(NetworkConfig(padding="same"), 512)) == 733_888 * 512**2


def test_tile_sizes_of_the_paper():
    assert geometry.output_size(572, 4) == 388
    assert geometry.smallest_input_for(512, 4) == 700  # one tile for a whole EM slice
    assert geometry.tile_step(388, 4) == 384  # 388 is no multiple of 16
