import numpy as np
import pytest

from ubend.data.formats import write_image, write_labels
from ubend.errors import FileError, InputError
from ubend.faces.napari.images import LARGE, UNLABELLED, images_in_folder, part_seen, planes_of


def test_a_stack_is_as_many_images_as_planes():
    data = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    found = planes_of("film", data)
    assert [image.name for image in found[:2]] == ["film [0, 0]", "film [0, 1]"]
    assert len(found) == 6
    pixels, inside = found[5].pixels()
    assert (pixels == data[1, 2]).all()
    assert (pixels[inside] == pixels).all()


def test_channels_are_no_planes():
    [image] = planes_of("scene", np.zeros((4, 5, 3)), colour=True)
    assert image.name == "scene"
    assert image.shape == (4, 5)
    assert image.pixels()[0].shape == (4, 5, 3)


@pytest.mark.parametrize("shape", [(7,), (0, 5)])
def test_what_is_no_image(shape):
    with pytest.raises(InputError, match="an image has rows and columns"):
        planes_of("x", np.zeros(shape))


def test_thousands_of_planes_are_refused():
    with pytest.raises(InputError, match="5000 are possible"):
        planes_of("x", np.zeros((5001, 1, 1), np.uint8))


class Lazy:
    """An array that remembers what was read of it."""

    def __init__(self, shape):
        self.shape, self.read = shape, []

    def __getitem__(self, index):
        self.read.append(index)
        return np.zeros(tuple(len(range(*i.indices(n))) for i, n in zip(index, self.shape, strict=True)), np.uint8)


def test_of_a_large_image_only_a_part_is_read():
    data = Lazy((9000, 8000))
    [image] = planes_of("slide", data)
    assert not data.read
    pixels, inside = image.pixels(margin=92)
    side = LARGE // 2
    assert pixels.shape == (side + 184, side + 184)
    assert pixels[inside].shape == image.painting().shape == (side, side)
    assert image.offset == ((9000 - side) // 2, (8000 - side) // 2)


def test_the_margin_ends_at_the_image():
    [image] = planes_of("slide", Lazy((9000, 8000)))
    image.window = (slice(0, 500), slice(7500, 8000))
    pixels, inside = image.pixels(margin=92)
    assert pixels.shape == (592, 592)
    assert inside == (slice(0, 500), slice(92, 592))


@pytest.mark.parametrize(
    "corners", [((0, 0), (100, 100)), ((-900, -900), (-800, -800)), ((99999, 0), (99999, 50)), ((0, 0), (9000, 8000))]
)
def test_what_is_seen_is_a_part_of_the_image(corners):
    rows, columns = part_seen((9000, 8000), corners)
    for part, length in ((rows, 9000), (columns, 8000)):
        assert 0 <= part.start < part.stop <= length
        assert 64 <= part.stop - part.start <= LARGE // 2


def test_a_small_image_is_seen_whole():
    assert part_seen((40, 30), ((-5, -5), (90, 90))) == (slice(0, 40), slice(0, 30))


def test_a_folder_of_images_with_labels_for_some(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    labels = np.array([[0, 1, UNLABELLED], [2, 2, 0]])
    write_image(tmp_path / "images" / "a.tif", np.arange(6, dtype=np.uint8).reshape(2, 3))
    write_image(tmp_path / "images" / "b.tif", np.zeros((2, 3), np.uint16))
    write_labels(tmp_path / "masks" / "a.tif", labels)
    with_labels, without = sorted(images_in_folder(tmp_path)[0], key=lambda image: image.name)
    assert with_labels.is_annotated
    assert not without.is_annotated
    assert with_labels.in_words() == "has labels"
    assert with_labels.painting().tolist() == [[1, 2, 0], [3, 3, 1]]
    assert with_labels.in_words() == "2 painted"
    assert with_labels.annotated().labels.tolist() == [[0, 1, -1], [2, 2, 0]]
    assert without.pixels()[0].shape == without.shape == without.painting().shape == (2, 3)


def test_a_folder_of_images_alone(tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint8))
    write_image(tmp_path / "b.tif", np.zeros((4, 4), np.uint8))
    assert [image.name for image in images_in_folder(tmp_path)[0]] == ["a", "b"]


def test_a_folder_without_images(tmp_path):
    with pytest.raises(FileError, match="no image that can be read"):
        images_in_folder(tmp_path)


@pytest.mark.parametrize(
    ("labels", "kind", "painted"),
    [
        ([[0, 255], [255, 0]], "classes", [[1, 2], [2, 1]]),
        ([[0, 1], [1, 0]], "classes", [[1, 2], [2, 1]]),
        ([[0, 3], [7, 0], [9, 12]], "instances", [[1, 4], [8, 1], [10, 13]]),
        ([[0, UNLABELLED], [1, 2]], None, [[1, 0], [2, 3]]),
    ],
)
def test_what_labels_mean_is_seen_from_their_values(labels, kind, painted, tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((len(labels), 2), np.uint8))
    write_labels(tmp_path / "a_mask.tif", np.array(labels))
    [image], seen = images_in_folder(tmp_path)
    assert seen == kind
    assert image.painting().tolist() == painted


def test_labels_that_could_be_two_things_are_asked_for(tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    write_labels(tmp_path / "a_mask.tif", np.eye(4, dtype=int))
    write_labels(tmp_path / "a_seg.tif", np.eye(4, dtype=int))
    with pytest.raises(InputError, match="a_mask"):
        images_in_folder(tmp_path)


def test_labels_of_another_size_are_refused(tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    write_labels(tmp_path / "a_mask.tif", np.eye(3, dtype=int))
    with pytest.raises(FileError, match="rows"):
        images_in_folder(tmp_path)
