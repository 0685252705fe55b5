import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ubend.errors import InputError
from ubend.method import geometry
from ubend.method.network import NetworkConfig, UNet
from ubend.method.overlap_tile import predict_tiles


def network(depth, channels, *, width=2):
    net = UNet(
        NetworkConfig(in_channels=channels, width=width, depth=depth, classes=3),
        generator=torch.Generator().manual_seed(depth),
    ).eval()

    @torch.inference_mode()
    def predict(tile):
        return net(torch.from_numpy(np.ascontiguousarray(tile)).unsqueeze(0))[0].numpy()

    return predict


def whole_mirrored(image, predict, depth):
    """The right answer: the network on the whole mirrored image, in one piece."""
    rows, columns = image.shape[1:]
    border = geometry.halo(depth)
    sizes = [geometry.smallest_input_for(length, depth) for length in (rows, columns)]
    after = [size - border - length for size, length in zip(sizes, (rows, columns), strict=True)]
    padded = np.pad(image, ((0, 0), (border, after[0]), (border, after[1])), mode="reflect")
    return predict(padded)[:, :rows, :columns]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 160),
    columns=st.integers(1, 160),
    depth=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    extra=st.integers(0, 120),
)
def test_any_tile_gives_the_network_on_the_whole_mirrored_image(rows, columns, depth, channels, extra):
    predict = network(depth, channels)
    image = np.random.default_rng(0).random((channels, rows, columns), dtype=np.float32)
    expected = whole_mirrored(image, predict, depth)
    largest = geometry.smallest_input_for(2**depth, depth) + extra
    tiled = predict_tiles(image, predict, depth=depth, largest_tile=largest)
    np.testing.assert_allclose(tiled, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (500, 37), (257, 301), (700, 500)])
def test_depth_4_at_the_paper_s_geometry(shape):
    predict = network(4, 1, width=1)
    image = np.random.default_rng(1).random((1, *shape), dtype=np.float32)
    expected = whole_mirrored(image, predict, 4)
    for largest in (204, 300, 572):
        tiled = predict_tiles(image, predict, depth=4, largest_tile=largest)
        np.testing.assert_allclose(tiled, expected, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 700), columns=st.integers(1, 500), largest=st.integers(204, 800))
def test_large_images(rows, columns, largest):
    predict = network(4, 1, width=2)
    image = np.random.default_rng(2).random((1, rows, columns), dtype=np.float32)
    expected = whole_mirrored(image, predict, 4)
    np.testing.assert_allclose(predict_tiles(image, predict, depth=4, largest_tile=largest), expected, atol=1e-5)


def test_tiles_at_388_would_not_be_exact():
    """Why the step is 384: with tiles put edge to edge the pooling grids fall out of phase."""
    predict = network(4, 1, width=2)
    image = np.random.default_rng(3).random((1, 20, 600), dtype=np.float32)
    right = whole_mirrored(image, predict, 4)
    padded = np.pad(image, ((0, 0), (92, 100), (92, 400)), mode="reflect")
    out_of_phase = predict(padded[:, :204, 388 : 388 + 252])
    in_phase = predict(padded[:, :204, 384 : 384 + 252])
    assert np.abs(in_phase[:, :20] - right[:, :, 384 : 384 + 68]).max() < 1e-5
    assert np.abs(out_of_phase[:, :20] - right[:, :, 388 : 388 + 68]).max() > 1e-3


def test_progress_is_told():
    calls = []
    image = np.zeros((1, 10, 50), np.float32)
    predict_tiles(
        image, lambda t: t[:, 92:-92, 92:-92], depth=4, largest_tile=204, on_tile=lambda *done: calls.append(done)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_is_no_image():
    with pytest.raises(InputError, match=r"\(channels, rows, columns\) and not empty; came \(5, 5\)"):
        predict_tiles(np.zeros((5, 5)), lambda tile: tile, depth=2, largest_tile=100)
