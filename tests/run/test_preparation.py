from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubend.data.annotated import Annotated, Task, infer_task
from ubend.data.formats import write_labels
from ubend.errors import InputError, TrainingError
from ubend.method.objects import ObjectRules, foreground_to_objects
from ubend.method.touching import separate_touching
from ubend.run.preparation import (
    MOST_HELD_OUT,
    annotated_images,
    check_finite,
    count_channels,
    count_copies,
    fingerprint,
    hold_out,
    make_contract,
    prepare,
    target_classes,
    with_copies,
)
from ubend.run.recipe import EnergyConfig, Recipe


def annotated(labels, image=None, name="a", pixel_size=None):
    labels = np.asarray(labels, np.int32)
    return Annotated(name, np.zeros(labels.shape, np.uint8) if image is None else image, labels, pixel_size)


def prepared(images, recipe, **changes):
    task = infer_task([image.labels for image in images], kind=changes.pop("kind", None))
    contract = make_contract(replace(recipe, energy=EnergyConfig(**changes)), task, images)
    return prepare(images, contract), contract


# lists and folders


def test_lists_of_arrays():
    image = np.zeros((4, 5), np.uint16)
    [one, two] = annotated_images([image, np.zeros((4, 5, 3))], [image > 0, np.ones((4, 5), np.uint16)])
    assert (one.name, two.name) == ("image 0", "image 1")
    assert one.image.dtype == np.uint16
    assert one.labels.dtype == two.labels.dtype == np.int32


def test_channels_first_become_channels_last():
    first = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    [one] = annotated_images([first], [np.zeros((4, 5), int)])
    assert (one.image == np.moveaxis(first, 0, -1)).all()
    assert count_channels([one]) == 3


def test_a_folder(tmp_path):
    for name in ("a.tif", "a_mask.tif"):
        write_labels(tmp_path / name, np.eye(3, dtype=int))
    [one] = annotated_images(tmp_path, None)
    assert (annotated_images(str(tmp_path), "mask")[0].labels == one.labels).all()
    with pytest.raises(InputError, match="labels is the name of its label folder, not a list"):
        annotated_images(tmp_path, [np.eye(3, dtype=int)])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([np.zeros((2, 2))], None, "1 images came, and none labels"),
        ([np.zeros((2, 2))], [], "1 images came, and 0 labels"),
        ([np.zeros((2, 2))], "masks", "1 images came, and 'masks' labels"),
        ([], [], "0 images came, and 0 labels"),
        ([], None, "0 images came"),
        ([np.zeros((2, 2))], [np.zeros((2, 2))], r"labels 0 must be integers \(rows, columns\), not float64 \(2, 2\)"),
        ([np.zeros((2, 2))], [np.zeros((2, 2, 1), int)], r"labels 0 must be .* not int64 \(2, 2, 1\)"),
        ([np.zeros((2, 3))], [np.zeros((3, 2), int)], r"image 0 is \(2, 3\), its labels are \(3, 2\)"),
    ],
)
def test_what_does_not_belong_together(images, labels, message):
    with pytest.raises(InputError, match=message):
        annotated_images(images, labels)


# holding out


def different(number):
    return replace(annotated([[number]], name=str(number)), image=np.array([[number]], np.uint16))


@given(copies=st.lists(st.integers(0, 5), min_size=3, max_size=30), share=st.floats(0.01, 0.9), seed=st.integers(0, 99))
def test_the_same_pixels_are_not_on_both_sides(copies, share, seed):
    rest, held = hold_out([different(k) for k in copies], share, seed)
    assert not {image.name for image in rest} & {image.name for image in held}
    assert len(rest) + len(held) == len(copies)
    assert rest


@given(seed=st.integers(0, 99))
def test_nor_if_they_alone_show_a_class(seed):
    images = [different(k) for k in (0, 1, 2, 3, 4, 4)]
    rest, held = hold_out(images, 0.4, seed, few_values=True)
    assert not {image.name for image in rest} & {image.name for image in held}


@given(number=st.integers(1, 200), share=st.floats(0, 0.999), seed=st.integers(0, 2**63))
def test_every_image_is_trained_on_or_held_out_never_both(number, share, seed):
    images = [different(k) for k in range(number)]
    rest, held = hold_out(images, share, seed)
    assert sorted(int(image.name) for image in [*rest, *held]) == list(range(number))
    assert len(rest) >= 1
    assert len(held) <= MOST_HELD_OUT
    assert bool(held) == (number >= 3 and share > 0)
    assert [i.name for i in hold_out(images, share, seed)[1]] == [i.name for i in held]


def test_another_seed_holds_out_others():
    images = [different(k) for k in range(20)]
    assert len({tuple(i.name for i in hold_out(images, 0.2, seed)[1]) for seed in range(5)}) > 1


# the contract


def test_contract_of_gray_images(tiny):
    images = [annotated([[0, 255]], pixel_size=0.5), annotated([[0, 0]])]
    contract = make_contract(tiny, infer_task([i.labels for i in images]), images)
    assert (contract.network.in_channels, contract.network.classes) == (1, 2)
    assert contract.task == Task("binary", (0, 255), None)
    assert contract.pixel_size == 0.5
    assert contract.objects == ObjectRules()
    assert not contract.normalisation.together


def test_contract_of_colour_and_classes(tiny):
    colour = np.random.default_rng(0).integers(0, 255, (2, 3, 3))
    images = [annotated([[0, 1, 2], [2, 1, 0]], colour.astype(np.uint8))]
    contract = make_contract(tiny, Task("classes", (0, 1, 2), None), images)
    assert (contract.network.in_channels, contract.network.classes) == (3, 3)
    assert contract.normalisation.together
    deep = [annotated([[0, 1, 2], [2, 1, 0]], colour.astype(np.uint16))]
    assert not make_contract(tiny, contract.task, deep).normalisation.together


def test_the_contract_states_what_the_images_look_like(tiny):
    rng = np.random.default_rng(0)
    squares = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((10, 10), int))
    images = [annotated(squares, rng.integers(0, 9, (30, 30)).astype(dtype)) for dtype in (np.uint8, np.uint16)]
    reference = make_contract(tiny, Task("instances", (), None), images).reference
    assert (reference.images, reference.dtypes) == (2, ("uint16", "uint8"))
    assert reference.diameters.median == pytest.approx(11.28, abs=0.01)
    assert reference.channels[0]["low"].least == 0
    assert reference.channels[0]["high"].most == 8
    assert make_contract(tiny, Task("classes", tuple(range(1, 10)), None), images).reference.diameters is None


def test_of_many_images_some_are_looked_at(tiny):
    images = [annotated([[0, 1]], np.full((1, 2), value, np.uint8)) for value in range(130)]
    reference = make_contract(tiny, Task("binary", (0, 1), None), images).reference
    assert 32 <= reference.images <= 64
    assert (reference.channels[0]["low"].least, reference.channels[0]["low"].most >= 127) == (0, True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((("DAPI",), ("DAPI",)), ("DAPI",)),
        ((("DAPI",), ()), ("DAPI",)),
        ((("DAPI",), ("GFP",)), ()),
        ((("red", "green", "blue"), ()), ()),
    ],
)
def test_names_of_channels_are_those_that_all_images_have(tiny, names, expected):
    images = [replace(annotated([[0, 1]]), channel_names=one) for one in names]
    assert make_contract(tiny, Task("binary", (0, 1), None), images).channel_names == expected


def test_names_of_classes(tiny):
    named = [replace(annotated([[0, 255]]), class_names=((255, "cell"), (0, "ground"), (3, "debris")))]
    assert make_contract(tiny, Task("binary", (0, 255), None), named).class_names == ("ground", "cell")
    assert make_contract(tiny, Task("binary", (0, 7), None), named).class_names == ()


def test_smallest_object_is_half_of_the_small_ones(tiny):
    labels = np.zeros((30, 30), int)
    labels[:10, :10], labels[20:, 20:], labels[0, 29] = 1, 2, 255  # two objects of 100 pixels; 255 is no object
    contract = make_contract(tiny, Task("instances", (), 255), [annotated(labels)])
    assert contract.objects.smallest == 50
    assert contract.objects.certainty == contract.objects.split == 0  # nothing more without a learned distance
    distance = make_contract(
        replace(tiny, energy=replace(tiny.energy, distance=1.0)), contract.task, [annotated(labels)]
    )
    assert distance.objects.certainty == 0.75
    assert distance.objects.split == 0.2


def test_small_cells_that_touch_are_no_specks(tiny):
    """What the network finds of them is smaller by the gap."""
    labels = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((5, 5), int))
    contract = make_contract(tiny, Task("instances", (), None), [annotated(labels)])
    found = foreground_to_objects(separate_touching(labels) > 0, contract.objects)
    assert found.max() == 25


def test_a_tile_that_does_not_fit_the_network(tiny):
    with pytest.raises(InputError, match=r"66×66 px does not fit a padded network.* nearest sizes to 66 are 64 and 68"):
        make_contract(
            replace(tiny, tiles=replace(tiny.tiles, size=66)), Task("binary", (0, 1), None), [annotated([[1]])]
        )


def test_number_of_channels():
    gray, colour = np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3), np.uint8)
    bright = colour + np.arange(3, dtype=np.uint8)

    def channels(*images):
        return count_channels([annotated(np.zeros((2, 2)), image, name) for name, image in zip("abc", images)])  # noqa: B905

    assert channels(gray, gray) == 1
    assert channels(colour, gray) == 1  # all are gray
    assert channels(colour, bright) == 3  # one happens to be gray
    with pytest.raises(InputError, match=r"different numbers of channels: 1 \(a\) and 3 \(b\); train one"):
        channels(gray, bright)


def test_nan_names_the_image():
    images = [annotated(np.zeros((2, 2)), name="good"), annotated(np.zeros((2, 2)), np.full((2, 2), np.nan), "bad")]
    with pytest.raises(TrainingError, match="bad is NaN or infinite at 4 places"):
        check_finite(images)


# targets and weights


def test_targets_of_touching_instances():
    touching = np.array([[1, 1, 1, 2, 2, 2, 0, -1]], np.int32)
    task = Task("instances", (), None)
    assert target_classes(touching, task, gap=1).tolist() == [[1, 1, 0, 0, 1, 1, 0, -1]]
    assert target_classes(touching, task, gap=0).tolist() == [[1, 1, 1, 1, 1, 1, 0, -1]]
    assert target_classes(touching, Task("classes", (0, 1, 2), None), gap=1) is touching


def test_nothing_to_weigh(tiny):
    [one], _ = prepared([annotated([[0, 1]])], tiny, w0=0, balance="none")
    assert one.weights is None


def test_balance_over_all_images(tiny):
    images = [annotated([[0, 0, 0, 0]]), annotated([[0, 0, 1, -1]])]  # 6 background, 1 foreground
    (one, two), _ = prepared(images, tiny, w0=0, balance="frequency")
    background, foreground = two.weights[0, 0], two.weights[0, 2]
    assert foreground == pytest.approx(6 * background)
    assert (one.weights == background).all()
    assert two.weights[0, 3] == 0  # not labelled


def test_pieces_of_a_binary_foreground_are_cells(tiny):
    [one], _ = prepared([annotated([[1, 1, 0, 1, 1] + 40 * [0]])], tiny, balance="none")
    assert one.weights[0, 2] > 5  # the gap between two pieces
    assert one.weights[0, -1] == pytest.approx(1, abs=1e-3)


def test_instances_get_border_weights(tiny):
    labels = np.zeros((40, 60), int)
    labels[10:30, 10:30], labels[10:30, 30:50] = 1, 2
    [one], contract = prepared([annotated(labels)], tiny, kind="instances", balance="none")
    assert contract.network.classes == 2
    assert one.classes[20, 29] == one.classes[20, 30] == 0
    assert one.weights[20, 30] > 5 > one.weights[0, 0]


def test_classes_know_no_border(tiny):
    labels = np.arange(3).repeat(10).reshape(3, 10)
    [one], _ = prepared([annotated(labels)], tiny, kind="classes", balance="none")
    assert one.weights is None
    assert one.classes.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("kind", "haze", "known"),
    [("instances", 1.0, True), ("binary", 1.0, True), ("classes", 1.0, False), ("binary", 0.0, False)],
)
def test_backgrounds_tell_the_haze(kind, haze, known, tiny):
    labels = np.zeros((64, 64), int)
    labels[20:30, 20:30] = 1
    labels[40:50, 40:50] = 1 if kind == "binary" else 2
    light = np.arange(64, dtype=np.uint8)[:, None] * np.ones((1, 64), np.uint8)
    recipe = replace(tiny, augmentation=replace(tiny.augmentation, haze=haze))
    [one], _ = prepared([annotated(labels, light)], recipe, kind=kind)
    assert (one.unevenness > 0.5) is known


@pytest.mark.parametrize(("kind", "name"), [("binary", "label 0"), ("instances", "background")])
def test_one_label_only_is_nothing_to_learn(tiny, kind, name):
    with pytest.raises(InputError, match=f"all labelled pixels .* are {name}: there is nothing to tell apart"):
        prepared([annotated([[0, 0, -1]])], tiny, kind=kind)


def test_no_label_at_all_is_nothing_to_learn(tiny):
    contract = make_contract(tiny, Task("binary", (0, 1), None), [annotated([[-1]])])
    with pytest.raises(InputError, match="not one pixel of the images to train on is labelled"):
        prepare([annotated([[-1, -1]])], contract)


def test_fingerprint_sees_image_and_labels():
    one, two = annotated([[0, 1]]), annotated([[1, 0]])
    assert fingerprint(one) == fingerprint(annotated([[0, 1]], name="other"))
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) != fingerprint(annotated([[0, 1]], np.ones((1, 2), np.uint8)))


# copies of cells


CELLS = Task("instances", (0, 1), None)


def squares(side=40, colours=None):
    """One bright square of 8 px, a cell, in the middle of an image."""
    labels = np.zeros((side, side), np.int32)
    labels[16:24, 16:24] = 1
    image = (labels > 0).astype(np.uint8) * 90 + 10
    return annotated(labels, image if colours is None else np.repeat(image[..., None], colours, axis=2))


@pytest.mark.parametrize("colours", [None, 3])
def test_images_are_given_again_with_copies_of_their_cells(colours):
    images = [squares(colours=colours), squares(48, colours=colours)]
    found = with_copies(images, 3, CELLS, 0)
    assert [one.image.shape[:2] for one in found] == [(40, 40), (48, 48), (40, 40), (48, 48), (40, 40)]
    assert all(one is image for one, image in zip(found, images, strict=False))
    for one in found[2:]:
        assert one.labels.max() == 2
        assert one.image.dtype == np.uint8
        assert one.image.shape[2:] == images[0].image.shape[2:]
    assert not np.array_equal(found[2].labels, found[4].labels)  # each time another copy
    assert [np.array_equal(a.image, b.image) for a, b in zip(found, with_copies(images, 3, CELLS, 0), strict=True)] == [
        True
    ] * 5


def test_an_image_without_room_is_not_given_again():
    full = annotated(np.pad(np.ones((10, 10)), 1), np.pad(np.full((10, 10), 90, np.uint8), 1))
    found = with_copies([full, squares()], 2, CELLS, 0)
    assert [one.labels.max() for one in found] == [1, 1, 2]


def test_how_many_images_are_given_again(monkeypatch):
    images = [squares(), squares(48)]
    twice = replace(Recipe(), augmentation=replace(Recipe().augmentation, copies=2))
    assert count_copies(images, twice, CELLS) == 4
    assert count_copies(images, twice, CELLS, pixels=40**2 + 48**2) == 2
    assert count_copies(images, twice, CELLS, pixels=40**2 / 2) == 0
    assert count_copies(images, Recipe(), CELLS) == 0
    assert count_copies(images, twice, Task("binary", (0, 1), None)) == 0
    monkeypatch.setattr("ubend.run.preparation.MOST_COPIED", 1.5 * (40**2 + 48**2))
    assert count_copies(images, twice, CELLS) == 3
    assert count_copies([squares(colours=3), squares(48, colours=3)], twice, CELLS) == 1  # three times the values


def test_of_many_images_some_all_over_the_list_are_given_again():
    images = [squares(40 + k) for k in range(9)]
    assert [len(one.labels) for one in with_copies(images, 3, CELLS, 0)[9:]] == [40, 43, 46]


def test_another_seed_other_copies():
    first, second = (with_copies([squares()], 1, CELLS, seed)[1].labels for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_what_is_ignored_is_neither_copied_nor_a_copy():
    image = squares()
    image.labels[16:24, 16:24] = 254
    image.labels[2:6, 2:12] = 255
    ignoring = Task("instances", (0, 254), 255)
    for seed in range(5):
        [_, given] = with_copies([image], 1, ignoring, seed)
        numbers, areas = np.unique(given.labels, return_counts=True)
        assert numbers.tolist() == [-1, 0, 254, 256]
        assert areas[0] == 40
        assert areas[-1] > 50
