from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

import ubend
from ubend.data.annotated import find_pairs, read_pairs
from ubend.data.formats import read_labels, write_image
from ubend.errors import FileError, InputError
from ubend.faces.napari.images import UNLABELLED, images_in_folder, planes_of
from ubend.faces.napari.painting import BACKGROUND, painting_of
from ubend.faces.napari.session import HELD_OUT_FROM, Session, segment, train_on, unsure_of
from ubend.method.objects import ObjectRules
from ubend.run import prediction


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tiny):
    """Steps of milliseconds instead of the default recipe."""
    recipe = replace(tiny, energy=replace(tiny.energy, distance=1.0), optimiser=replace(tiny.optimiser, warm_up=0.0))
    monkeypatch.setattr("ubend.run.recipe.load_recipe", lambda name: recipe)


@pytest.fixture
def session(discs):
    """Four images, of which two are painted in part."""
    images, masks = discs
    found = Session()
    found.add(planes_of("discs", np.stack(images)))
    for image, mask in zip(found.images[:2], masks, strict=False):
        half = image.painting()
        half[:] = painting_of(mask // 255)
        half[:, : half.shape[1] // 3] = 0
    return found


def stop_at(step):
    return lambda progress: progress.step >= step


def test_images_keep_their_names_apart():
    session = Session()
    session.add(planes_of("a", np.zeros((4, 4))))
    session.add(planes_of("a", np.zeros((4, 4))))
    session.add(planes_of("a", np.zeros((4, 4))))
    assert [image.name for image in session.images] == ["a", "a (2)", "a (3)"]


def test_what_is_not_painted_is_not_trained_on(session):
    annotated = session.annotated()
    assert [one.name for one in annotated] == ["discs [0]", "discs [1]"]
    assert (annotated[0].labels[:, :5] == -1).all()
    assert set(np.unique(annotated[0].labels)) == {-1, 0, 1}
    before = annotated[0].labels.copy()
    session.images[0].painting()[:] = 0  # painting goes on while a training runs
    assert (annotated[0].labels == before).all()


def test_nothing_to_tell_apart_is_said_before_training():
    session = Session()
    session.add(planes_of("a", np.zeros((4, 4))))
    with pytest.raises(InputError, match="nothing is painted yet"):
        session.annotated()
    session.images[0].painting()[0] = 2
    with pytest.raises(InputError, match="no background is painted"):
        session.annotated()
    session.images[0].painting()[:] = BACKGROUND
    with pytest.raises(InputError, match="no cell is painted yet"):
        session.annotated()
    session.kind = "classes"
    with pytest.raises(InputError, match="no second class is painted yet"):
        session.annotated()


def test_the_loop(session):
    """Train until stopped, look, see what to annotate next, train on."""
    model = train_on(session.annotated(), "instances", minutes=5, on_step=stop_at(3))
    assert model.contract.provenance["steps"] == 3
    assert not model.contract.provenance["held_out"]
    session.use(model)
    for image in session.images:
        image.result = segment(model, image)
        assert image.result.shape == image.shape
        image.unsure = unsure_of(model, image)
    assert session.next_to_annotate() is max(session.images[2:], key=lambda image: image.unsure)
    again = train_on(session.annotated(), "instances", minutes=5, start=model, on_step=stop_at(1))
    before, after = (dict(one.network.named_parameters()) for one in (model, again))
    assert all(torch.allclose(before[name], after[name], atol=0.02) for name in before)
    session.use(again)
    assert session.next_to_annotate() is None


def test_some_are_held_out_when_there_are_enough(discs):
    images, masks = (list(np.concatenate([part, part])) for part in discs)
    images = [image + np.uint8(k) for k, image in enumerate(images)]
    session = Session()
    session.add(planes_of("discs", np.stack(images)))
    for image, mask in zip(session.images[:HELD_OUT_FROM], masks, strict=False):
        image.painting()[:] = painting_of(mask // 255)
    session.use(train_on(session.annotated(), "instances", minutes=5, on_step=stop_at(1)))
    [held_out] = [image for image in session.images if image.held_out]
    assert "held out" in held_out.in_words()
    session.images[HELD_OUT_FROM].painting()[:] = painting_of(masks[HELD_OUT_FROM] // 255)
    session.use(train_on(session.annotated(), "instances", minutes=5, start=session.model, on_step=stop_at(1)))
    assert [image for image in session.images if image.held_out] == [held_out]


def test_classes(session):
    model = train_on(session.annotated(), "classes", minutes=5, on_step=stop_at(2))
    assert model.contract.task.values == (0, 1)
    assert set(np.unique(segment(model, session.images[3]))) <= {0, 1}


def test_a_part_of_a_large_image_has_the_result_of_the_whole(instance_model, monkeypatch):
    """The network sees the margin: no border shows where the part ends."""
    monkeypatch.setattr(prediction, "mixed_precision", lambda _device: None)  # 16 bits round otherwise in other tiles
    scene = ubend.simulate("nuclei", np.random.default_rng(0), (256, 256)).image
    fixed = replace(instance_model.contract, normalisation=replace(instance_model.contract.normalisation, kind="range"))
    likely = ubend.Model(instance_model.network, fixed, device="cpu").predict(scene)[1]
    rules = ObjectRules(threshold=float(np.median(likely)))
    model = ubend.Model(instance_model.network, replace(fixed, objects=rules), device="cpu")
    [image] = planes_of("slide", scene)
    image.window = (slice(80, 180), slice(60, 200))
    cut, whole = segment(model, image) > 0, model.segment(scene)[image.window] > 0
    assert 0.1 < whole.mean() < 0.9
    assert (cut == whole).all()


def test_a_file_comes_in_once(tmp_path):
    """Twice, it could be trained on and held out at once."""
    write_image(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    session = Session()
    assert len(session.add(images_in_folder(tmp_path)[0])) == 1
    assert session.add(images_in_folder(tmp_path)[0]) == []


# files


def test_no_two_images_are_saved_under_one_name(tmp_path):
    session = Session()
    for name in ("a b", "a_b", "A_b", "a/b", "a:b"):
        session.add(planes_of(name, np.zeros((4, 4), np.uint8)))
    for image in session.images:
        image.painting()[:2] = BACKGROUND
    written = session.save(tmp_path)
    assert len({str(path).casefold() for path in written}) == 10
    assert not any(set(path.name) & set('<>:"|?*') for path in written)


def test_a_cell_of_the_number_for_nothing_painted_is_saved(session, tmp_path):
    session.images[0].painting()[:2, :2] = UNLABELLED + 1
    session.save(tmp_path)
    again, _ = images_in_folder(tmp_path)
    assert (again[0].painting() > BACKGROUND).sum() == (session.images[0].painting() > BACKGROUND).sum()


def test_masks_of_others_are_taken_as_they_are(tmp_path):
    """Of 16 bits, the foreground of a binary mask is often 65535."""
    for part, pixels in (("images", np.zeros((2, 2), np.uint8)), ("masks", np.array([[0, 65535]] * 2, np.uint16))):
        (tmp_path / part).mkdir()
        tifffile.imwrite(tmp_path / part / "a.tif", pixels)
    assert images_in_folder(tmp_path)[0][0].painting().tolist() == [[1, 2]] * 2


def test_results_of_the_model_before_are_not_saved_with_the_next(session, instance_model, model, tmp_path):
    session.use(model)
    session.images[3].result, session.images[3].result_of = segment(model, session.images[3]), model
    session.use(instance_model)
    session.save(tmp_path)
    assert not (tmp_path / "results").exists()


def test_the_data_of_others_stay_readable(session, tmp_path):
    """Of two images with one name, nobody could say which is meant."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "discs_0.png").write_bytes(b"")
    with pytest.raises(FileError, match=r"discs_0\.png has the name of an image to be saved"):
        session.save(tmp_path)
    assert not (tmp_path / "masks").exists()


def test_a_saved_session_trains_on_the_command_line_and_opens_again(session, instance_model, tmp_path):
    session.use(instance_model)
    session.images[3].result, session.images[3].result_of = segment(instance_model, session.images[3]), instance_model
    written = session.save(tmp_path / "out")
    assert all(path.is_file() for path in written)
    pairs = read_pairs(find_pairs(tmp_path / "out"))
    assert [pair.name for pair in pairs] == ["discs_0", "discs_1"]
    assert pairs[0].labels.max() == UNLABELLED
    assert (pairs[0].image == session.images[0].pixels()[0]).all()
    [result] = read_labels(tmp_path / "out" / "results" / "discs_3.tif")
    assert (result.pixels == session.images[3].result).all()
    table = (tmp_path / "out" / "results" / "discs_3_objects.csv").read_text().splitlines()
    assert len(table) == 1 + int(session.images[3].result.max())
    assert ubend.load(tmp_path / "out").contract.task.kind == "instances"
    again, _ = images_in_folder(tmp_path / "out")
    assert (again[0].painting() == session.images[0].painting()).all()
    session.save(tmp_path / "out")  # what it wrote itself it may replace


def test_nothing_of_others_is_replaced(session, tmp_path):
    (tmp_path / "masks").mkdir()
    mine = tmp_path / "masks" / "discs_0.tif"
    mine.write_bytes(b"painted by hand")
    with pytest.raises(FileError, match="was not written by ubend"):
        session.save(tmp_path)
    assert mine.read_bytes() == b"painted by hand"
    assert not (tmp_path / "images").exists()


def test_a_model_of_others_is_not_replaced(session, instance_model, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"another")
    session.use(instance_model)
    with pytest.raises(FileError, match="was not written by ubend"):
        session.save(tmp_path)


def test_there_must_be_something_to_save(tmp_path):
    with pytest.raises(InputError, match="nothing to save"):
        Session().save(tmp_path)
