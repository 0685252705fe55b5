from dataclasses import replace

import numpy as np
import pytest
import torch

from ubend.data.annotated import Annotated, Task
from ubend.errors import TrainingError
from ubend.method.network import NetworkConfig, UNet
from ubend.run import validation
from ubend.run.contract import Contract, Normalisation
from ubend.run.validation import tune_objects, validate

INSTANCES = Task("instances", (), None)


def two_discs(joined):
    """An image that is the probability of foreground itself, and its two cells."""
    rows, columns = np.indices((40, 50))
    cells = ((rows - 20) ** 2 + (columns - 13) ** 2 <= 64) * 1 + ((rows - 20) ** 2 + (columns - 35) ** 2 <= 64) * 2
    bar = (abs(rows - 20) <= 2) & (columns > 13) & (columns < 35) if joined else False
    return np.where((cells > 0) | bar, 0.9, 0.1).astype(np.float32), cells.astype(np.int32)


@pytest.fixture
def contract():
    network = NetworkConfig(width=2, depth=1)
    return Contract(network=network, task=INSTANCES, normalisation=Normalisation("range", together=False), views="one")


@pytest.fixture
def image_is_probability(monkeypatch):
    def probabilities(_network, _contract, image, **_choices):
        return np.stack([1 - image, image])

    monkeypatch.setattr(validation, "predict_probabilities", probabilities)


def held_out(joined):
    return [Annotated(f"{k}", *two_discs(joined), None) for k in range(2)]


@pytest.mark.usefixtures("image_is_probability")
def test_objects_that_hang_together_are_parted(contract):
    net = UNet(contract.network)
    before = validate(net, held_out(joined=True), contract)
    tuned = tune_objects(net, held_out(joined=True), contract)
    assert tuned.objects.split > 0
    after = validate(net, held_out(joined=True), tuned)
    assert before.overall[before.headline] < after.overall[after.headline] == 1


@pytest.mark.usefixtures("image_is_probability")
def test_nothing_better_leaves_the_choice(contract):
    assert tune_objects(UNet(contract.network), held_out(joined=False), contract) == contract


def test_no_objects_or_no_images_leave_the_contract(contract):
    net = UNet(contract.network)
    assert tune_objects(net, [], contract) is contract
    binary = replace(contract, task=Task("binary", (0, 1), None))
    assert tune_objects(net, held_out(joined=True), binary) is binary


def test_weights_without_bound_are_told(contract):
    net = UNet(contract.network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e30)
    with pytest.raises(TrainingError, match="returns no numbers any more: its weights have grown"):
        validate(net, held_out(joined=False), contract)
