import numpy as np
import pytest
import torch

from ubend.errors import InputError
from ubend.method.augmentation import (
    Augmentation,
    AugmentationConfig,
    affine_about,
    augment,
    change_gray_values,
    draw_augmentation,
    unevenness,
)
from ubend.method.elastic import Bend

STILL = Augmentation(
    bend=Bend(np.zeros((2, 3, 3))), angle=0.0, flip=False, zoom=1.0, gain=1.0, offset=0.0, gamma=1.0, noise=0.0,
    noise_seed=0, shading=np.zeros((3, 3)), haze=np.zeros((3, 3)),
)  # fmt: skip


def changed(**values):
    return Augmentation(**{**STILL.__dict__, **values})


def test_nothing_drawn_cuts_the_tile_out():
    image = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    tile, labels, weights, _ = augment(
        STILL, image, image[0].astype(np.int16), image[0].astype(np.float32), centre=(2.5, 3.5), shape=(4, 6), margin=1
    )
    np.testing.assert_allclose(tile[0], image[0, 1:5, 1:7], atol=1e-4)
    assert labels.tolist() == image[0, 2:4, 2:6].tolist()
    np.testing.assert_allclose(weights, image[0, 2:4, 2:6], atol=1e-4)


def test_flip_and_quarter_turn_by_hand():
    image = np.array([[[1, 2], [3, 4]]], dtype=np.uint8)

    def labels_of(draw):
        return augment(draw, image, image[0].astype(np.int16), centre=(0.5, 0.5), shape=(2, 2))[1].tolist()

    assert labels_of(changed(flip=True)) == [[2, 1], [4, 3]]
    assert labels_of(changed(angle=np.pi / 2)) == [[3, 1], [4, 2]]
    assert labels_of(changed(angle=np.pi)) == [[4, 3], [2, 1]]


def test_zoom_magnifies():
    image = np.arange(9, dtype=np.float32).reshape(1, 1, 9)
    tile, *_ = augment(changed(zoom=2.0), image, image[0].astype(np.int16), centre=(0, 4), shape=(1, 5))
    np.testing.assert_allclose(tile[0, 0], [3, 3.5, 4, 4.5, 5], atol=1e-5)


def test_image_labels_and_weights_are_read_at_the_same_places():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:90, :80]
    disc = ((rows - 40) ** 2 + (columns - 45) ** 2 < 25**2).astype(np.int16)
    config = AugmentationConfig(contrast=0, brightness=0, gamma=1, zoom=1.3)
    for _ in range(20):
        draw = draw_augmentation(rng, config, (64, 64))
        tile, labels, weights, _ = augment(
            draw, disc[None].astype(np.float32), disc, disc.astype(np.float32), centre=(40, 40), shape=(64, 64)
        )
        assert ((tile[0] > 0.5) == (labels > 0)).float().mean() > 0.99
        torch.testing.assert_close(tile[0], weights)
        assert set(labels.unique().tolist()) <= {0, 1}


def test_negative_labels_survive():
    labels = np.full((8, 8), -1, np.int16)
    draw = draw_augmentation(np.random.default_rng(0), AugmentationConfig(), (8, 8))
    _, bent, *_ = augment(draw, labels[None], labels, centre=(4, 4), shape=(8, 8))
    assert (bent == -1).all()


def test_a_draw_can_be_applied_again():
    draw = draw_augmentation(np.random.default_rng(1), AugmentationConfig(noise=0.2), (16, 16))
    image = np.random.default_rng(2).random((2, 30, 30)).astype(np.float32)
    one, two = (augment(draw, image, image[0].astype(np.int16), centre=(9, 9), shape=(16, 16))[0] for _ in range(2))
    assert torch.equal(one, two)


def test_gray_values_by_hand():
    tile = torch.tensor([[[0.0, 2.0]]])  # mean 1, standard deviation 1
    np.testing.assert_allclose(change_gray_values(changed(gain=2.0, offset=0.5), tile)[0, 0], [-0.5, 3.5])
    curve = change_gray_values(changed(gamma=2.0), torch.tensor([[[0.0, 2.0, 4.0]]]))[0, 0]
    np.testing.assert_allclose(curve, [0, 1, 4], atol=1e-5)


def test_shading_by_hand():
    """Twice as bright at one side, as it was at the other; the darkest value is what it was."""
    shading = np.log([[1, 1.5, 2]] * 3)
    tile = torch.full((1, 3, 5), 6.0)
    tile[0, 0, 0] = 4.0
    shaded = change_gray_values(changed(shading=shading), tile)[0]
    assert shaded[0, 0] == 4
    np.testing.assert_allclose(shaded[1:, 0], [6, 6], rtol=1e-6)
    np.testing.assert_allclose(shaded[:, 2], 7, rtol=1e-6)
    np.testing.assert_allclose(shaded[:, 4], 8, rtol=1e-6)


def test_haze_by_hand():
    """As much light at one side as the standard deviation, none in the middle, as much less at the other."""
    tile = torch.tensor([1.0, 5.0] * 10).reshape(1, 4, 5)
    hazy = change_gray_values(changed(haze=np.array([[1, 0, -1]] * 3)), tile) - tile
    np.testing.assert_allclose(hazy[0, :, [0, 2, 4]], [[2, 0, -2]] * 4, atol=1e-5)


def test_little_noise_is_drawn_more_often_than_much():
    rng, config = np.random.default_rng(0), AugmentationConfig(noise=1.0, shading=0.5)
    draws = [draw_augmentation(rng, config, (8, 8)) for _ in range(300)]
    assert np.median([d.noise for d in draws]) < 0.35
    assert max(d.noise for d in draws) > 0.9
    assert 0.4 < np.std([d.shading for d in draws]) < 0.6


@pytest.mark.parametrize(("uneven", "spread"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (3.0, 1.0)])
def test_haze_is_as_strong_as_backgrounds_are_uneven_up_to_what_a_tile_shows(uneven, spread):
    rng, config = np.random.default_rng(0), AugmentationConfig(haze=2.0)
    draws = [draw_augmentation(rng, config, (8, 8), unevenness=uneven).haze for _ in range(300)]
    assert np.std(draws) == pytest.approx(spread, rel=0.05)


def lit(shape=(64, 64), *, light=150.0, noise=10.0):
    """Cells on a background that is brighter from row to row."""
    rng = np.random.default_rng(0)
    cells = (rng.random(shape) < 0.3).astype(np.int32)
    ramp = np.linspace(0, light, shape[0])[:, None]
    return 200.0 * cells + 20 + rng.normal(0, noise, shape) + ramp, cells


def test_unevenness_is_of_the_background_alone():
    (even, cells), (hazy, _) = lit(light=0), lit()
    assert unevenness(even[None], cells) == 0
    uneven = unevenness(hazy[None], cells)
    assert uneven == pytest.approx(150 / np.sqrt(12) / hazy.std() - 0.1, rel=0.1)
    assert unevenness(np.stack([even, hazy]), cells) == uneven  # of the most uneven channel
    debris = hazy.copy()
    debris[24:40, 24:40] = 5000
    unlabelled = cells.copy()
    unlabelled[24:40, 24:40] = -1
    assert unevenness(debris[None], unlabelled) == pytest.approx(uneven, rel=0.1)
    many = [np.kron(one, np.ones((20, 20), one.dtype)) for one in (hazy, cells)]  # of a large image every other pixel
    assert unevenness(many[0][None], many[1]) == pytest.approx(uneven, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (8, 8), (16, 16), (32, 32)])
def test_in_images_too_small_to_tell_noise_is_no_light(shape):
    image = np.random.default_rng(0).normal(size=(1, *shape))
    labels = np.zeros(shape, np.int32)
    labels[0, 0] = 1
    assert unevenness(image, labels) == 0


def test_steps_of_integers_are_no_light():
    image = np.random.default_rng(0).normal(5.5, 0.5, (1, 128, 128)).astype(np.uint8)
    labels = np.zeros((128, 128), np.int32)
    labels[60:64, 60:64] = 1
    assert unevenness(image, labels) == 0


def test_an_image_without_cells_says_nothing_about_light():
    light, labels = lit()[0][None], np.zeros((64, 64), np.int32)
    assert unevenness(light, labels) == 0
    assert unevenness(light, labels - 1) == 0


def test_half_floats_do_not_overflow():
    image, cells = lit()
    assert unevenness((30 * image)[None].astype(np.float16), cells) == pytest.approx(
        unevenness(image[None], cells), rel=0.01
    )


def test_haze_is_of_each_channel():
    tile = torch.stack([torch.tensor([1.0, 5.0] * 10), torch.tensor([100.0, 500.0] * 10)]).reshape(2, 4, 5)
    before = tile.clone()
    hazy = change_gray_values(changed(haze=np.array([[1, 0, -1]] * 3)), tile) - tile
    np.testing.assert_allclose(hazy[1], 100 * hazy[0], atol=1e-3)
    assert torch.equal(tile, before)


@pytest.mark.parametrize("changes", [{}, {"gain": 1.5, "offset": 0.5}, {"noise": 1.0}, {"gamma": 2.0}])
def test_the_tile_that_is_changed_stays_as_it_was(changes):
    tile = torch.arange(20.0).reshape(1, 4, 5)
    change_gray_values(changed(**changes), tile)
    assert torch.equal(tile, torch.arange(20.0).reshape(1, 4, 5))


def test_gray_values_of_a_constant_tile_stay_finite():
    draw = changed(gain=1.2, offset=0.3, gamma=0.8, noise=0.1, shading=np.eye(3), haze=np.eye(3))
    assert torch.isfinite(change_gray_values(draw, torch.full((1, 4, 4), 7.0))).all()


def test_draws_keep_to_their_limits():
    config = AugmentationConfig(rotation=20, zoom=1.5, contrast=0.1, brightness=0.2, gamma=1.4, noise=0.3, flip=False)
    rng = np.random.default_rng(0)
    draws = [draw_augmentation(rng, config, (8, 8)) for _ in range(300)]
    assert max(abs(d.angle) for d in draws) <= np.deg2rad(20)
    assert 1 / 1.5 <= min(d.zoom for d in draws) < 0.75 < 1.4 < max(d.zoom for d in draws) <= 1.5
    assert max(abs(d.gain - 1) for d in draws) <= 0.1
    assert max(abs(d.offset) for d in draws) <= 0.2
    assert max(d.noise for d in draws) <= 0.3
    assert not any(d.flip for d in draws)


def test_the_middle_of_the_tile_lies_at_the_centre():
    affine = affine_about((30.0, 50.0), (11, 21), angle=1.0, flip=True, zoom=1.7)
    np.testing.assert_allclose(affine @ [5, 10, 1], [30, 50])


@pytest.mark.parametrize(
    "wrong", [{"rotation": -1}, {"haze": -1}, {"contrast": 1.0}, {"zoom": 0.5}, {"elastic_points": 0}]
)
def test_limits_out_of_range(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}.* of the augmentation"):
        AugmentationConfig(**wrong)
