from dataclasses import replace

import numpy as np
import pytest

from ubend.errors import InputError
from ubend.run.disagreement import disagreement_of, predict_with_disagreement
from ubend.run.model import Model


@pytest.mark.parametrize("views", ["one", "dihedral", "rotations"])
def test_the_probabilities_are_those_of_the_model(model, discs, views):
    seen = Model(model.network, replace(model.contract, views=views), device="cpu")
    probabilities, disagreement = predict_with_disagreement(seen, discs[0][0])
    assert (probabilities == seen.predict(discs[0][0])).all()
    assert disagreement.shape == discs[0][0].shape
    assert disagreement.min() >= 0
    assert 0 < disagreement.max() < 1


def test_a_learned_distance_is_no_opinion_on_a_class(instance_model, discs, tiny):
    probabilities, disagreement = predict_with_disagreement(instance_model, discs[0][0])
    assert (probabilities == instance_model.predict(discs[0][0])).all()
    assert disagreement.shape == probabilities.shape[1:]


def test_a_turned_image_is_as_unsure_and_turned(model, discs):
    image = discs[0][0][:80, :80]  # as long as wide, and a multiple of 4: the pooling grid turns with it
    here, there = (predict_with_disagreement(model, one)[1] for one in (image, np.rot90(image).copy()))
    np.testing.assert_allclose(np.rot90(here), there, atol=1e-5)


def test_a_part_has_the_gray_values_of_the_whole(model, discs):
    image = discs[0][0].copy()
    image[:5] = 255  # far away, and brighter than all the rest
    alone, _ = predict_with_disagreement(model, image[40:72, 40:72])
    part, _ = predict_with_disagreement(model, image, rows=slice(40, 72), columns=slice(40, 72))
    assert part.shape == alone.shape
    assert np.abs(part - alone).max() > 1e-3


def test_disagreement_by_hand():
    views = np.zeros((4, 2, 1, 3), np.float32)
    views[:, 1] = [[[1, 1, 0.5]], [[1, 1, 0.5]], [[1, 0, 0.5]], [[1, 0, 0.5]]]
    views[:, 0] = 1 - views[:, 1]
    assert disagreement_of(views).tolist() == [[0.0, 0.5, 0.0]]


def test_other_channels_are_refused(model):
    with pytest.raises(InputError, match="the image has 2 channels, the model takes 1"):
        predict_with_disagreement(model, np.zeros((20, 20, 2)))
