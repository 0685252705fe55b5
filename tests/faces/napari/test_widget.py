"""The dock widget without a window: buttons are pressed as a person would press them."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

napari = pytest.importorskip("napari", reason="the extra napari is not installed: pip install 'napari[pyqt6]'")
try:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from qtpy.QtCore import QEvent, QThreadPool
    from qtpy.QtWidgets import QApplication, QWidget
except (ImportError, RuntimeError) as missing:
    pytest.skip(f"Qt cannot be loaded here: {missing}", allow_module_level=True)

from napari.components import ViewerModel  # noqa: E402

import ubend  # noqa: E402
from ubend.data.formats import write_image, write_labels  # noqa: E402
from ubend.faces.napari.painting import BACKGROUND, painting_of  # noqa: E402
from ubend.faces.napari.widget import PAINTED, RESULT, TrainAndCorrect, _trained_words  # noqa: E402


@pytest.fixture(scope="module")
def app():
    return QApplication.instance() or QApplication([])


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tiny):
    monkeypatch.setattr("ubend.run.recipe.load_recipe", lambda name: tiny)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def widget(app, viewer, discs):
    """A stack of four images, opened before the widget."""
    viewer.add_image(np.stack(discs[0]), name="discs")
    made = TrainAndCorrect(viewer)
    yield made
    made._stop.set()
    wait(lambda: not made.jobs.now)
    made.deleteLater()


def wait(until, seconds=60):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it does not come"
        QApplication.processEvents()
        time.sleep(0.005)
    QApplication.processEvents()


def paint(widget, mask):
    """Paint the disc and a part of what is around it, pressing the buttons."""
    layer = widget._layers[PAINTED]
    widget.new_cell.click()
    layer.data_setitem(np.nonzero(mask), layer.selected_label)
    widget.background.click()
    layer.data_setitem(np.nonzero(~mask[:, :30]), layer.selected_label)


def train(widget, steps=30):
    """Press Train, and Stop after some steps."""
    before = widget.session.model
    widget.train.click()
    assert "Stop" in widget.train.text()
    wait(lambda: widget._progress is not None and widget._progress.step >= steps)
    widget.train.click()
    wait(lambda: widget.session.model is not before)
    wait(lambda: widget.current.result_of is widget.session.model)


def test_layers_that_are_open_are_the_images(widget):
    assert [image.name for image in widget.session.images] == [f"discs [{k}]" for k in range(4)]
    assert widget.current is widget.session.images[0]
    assert widget.list.count() == 4
    assert not widget.segment.isEnabled()
    assert not widget.next.isEnabled()


def test_a_layer_that_is_opened_later_joins_them(app, viewer):
    widget = TrainAndCorrect(viewer)
    assert not widget.train.isEnabled()
    layer = viewer.add_image(np.zeros((30, 40)), name="late")
    assert widget.current.name == "late"
    assert widget.train.isEnabled()
    viewer.add_labels(np.zeros((30, 40), int), name="labels")
    viewer.add_points([[1, 1]])
    assert len(widget.session.images) == 1
    viewer.layers.remove(layer)  # it is shown by a layer of ours when it is wanted again
    widget.show_image(widget.session.images[0])
    assert widget._own_image in viewer.layers


def test_without_paint_it_says_what_to_do(widget):
    widget.train.click()
    assert widget.said.text() == "Nothing is painted yet: paint a few cells, and some background."
    assert not widget.jobs.now


def test_each_image_keeps_its_painting(widget, viewer, discs):
    mask = discs[1][0] > 0
    paint(widget, mask)
    first = widget._layers[PAINTED].data.copy()
    widget.list.setCurrentRow(2)
    assert widget.current is widget.session.images[2]
    assert viewer.dims.current_step[0] == 2
    assert not widget._layers[PAINTED].data.any()
    widget.new_cell.click()
    assert widget._layers[PAINTED].selected_label == 2
    viewer.dims.set_current_step(0, 0)
    assert widget.current is widget.session.images[0]
    assert (widget._layers[PAINTED].data == first).all()
    widget.new_cell.click()
    assert widget._layers[PAINTED].selected_label == 3
    assert "1 painted" in widget.list.item(0).text()


def test_the_loop(widget, viewer, discs, tmp_path):
    """Paint, train, look, correct, train on, annotate what the model is least sure of, save, open again."""
    paint(widget, discs[1][0] > 0)
    train(widget)
    first = widget.session.model
    assert widget.said.text().startswith("Trained ")
    assert "No image is held out" in widget.said.text()
    assert viewer.layers[RESULT].data.max() >= 1
    wait(lambda: all(image.unsure is not None for image in widget.session.images[1:]))
    assert "unsure" in widget.list.item(3).text()
    before = widget._layers[PAINTED].data.copy()
    widget.correct.click()
    painted = widget._layers[PAINTED].data
    assert (painted[before > 0] == before[before > 0]).all()
    assert (painted > 0).all()
    widget._layers[PAINTED].undo()
    assert (widget._layers[PAINTED].data == before).all()
    widget.next.click()
    assert widget.current is max(widget.session.images[1:], key=lambda image: image.unsure)
    wait(lambda: widget.current.result_of is first)
    number = widget.list.currentRow()
    paint(widget, discs[1][number] > 0)
    assert widget.begin.currentText() == "train on from the model"
    train(widget, steps=3)
    assert len(widget.session.model.contract.provenance["images"]) == 2
    widget.segment_all.click()
    wait(lambda: "All 4 images are segmented" in widget.said.text())
    widget.save_to(tmp_path / "out")
    assert f"files in {tmp_path / 'out'}" in widget.said.text()
    assert len(list((tmp_path / "out" / "results").glob("*.tif"))) == 4
    again = TrainAndCorrect(ViewerModel())
    again.open_folder(tmp_path / "out")
    assert (again._layers[PAINTED].data == widget.session.images[0].painted).all()
    again.load_model(tmp_path / "out")
    wait(lambda: again.current.result_of is not None and not again.jobs.now)
    assert (again.current.result == widget.session.images[0].result).all()


def test_an_error_is_a_sentence_and_the_widget_lives_on(widget, monkeypatch):
    layer = widget._layers[PAINTED]
    layer.data_setitem(np.nonzero(np.ones_like(layer.data)), BACKGROUND)
    widget.train.click()
    assert widget.said.text().startswith("No cell is painted yet")
    widget.load_model("nowhere.safetensors")
    wait(lambda: not widget.jobs.now)
    assert "nowhere.safetensors" in widget.said.text()
    widget.open_folder("nowhere")
    assert "nowhere" in widget.said.text()
    assert widget.train.isEnabled()


def test_a_fault_of_ours_is_told(widget, capsys):
    failed = []
    widget.jobs.put("fault", lambda: 1 / 0, lambda _: None, failed.append)
    wait(lambda: failed)
    assert "please report" in failed[0]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_classes(widget, discs):
    widget.kind.setCurrentIndex(1)
    assert widget.session.kind == "classes"
    assert widget.new_cell.text() == "New class"
    paint(widget, discs[1][0] > 0)
    widget.show_image(widget.session.images[1])
    widget.new_cell.click()
    assert widget._layers[PAINTED].selected_label == 3
    train(widget)
    assert widget.session.model.contract.task.kind == "classes"
    assert set(np.unique(widget.current.result)) <= {0, 1}


def test_a_labels_layer_becomes_a_painting(widget, viewer, discs):
    labels = np.stack(discs[1]) // 255
    layer = viewer.add_labels(labels.astype(int), name="by hand")
    viewer.layers.selection.active = layer
    widget.take.click()
    assert (widget._layers[PAINTED].data == painting_of(labels[0])).all()
    other = viewer.add_labels(np.zeros((3, 3), int), name="small")
    viewer.layers.selection.active = other
    widget.take.click()
    assert "do not lie on each other" in widget.said.text()
    viewer.layers.selection.active = viewer.layers["discs"]
    widget.take.click()
    assert "Select the labels layer" in widget.said.text()


def test_a_folder_of_images_of_any_size_and_colour(app, viewer, tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((30, 40), np.uint8))
    write_image(tmp_path / "b.tif", np.zeros((20, 10, 3), np.uint8))
    write_image(tmp_path / "c.tif", np.zeros((20, 10, 2), np.uint16))
    widget = TrainAndCorrect(viewer)
    widget.open_folder(tmp_path)
    for row, shape in enumerate([(30, 40), (20, 10, 3), (2, 20, 10)]):
        widget.list.setCurrentRow(row)
        assert widget._own_image.data.shape == shape
        assert len([layer for layer in viewer.layers if layer.name in "abc"]) == 1
        assert viewer.layers[0] is widget._own_image
        assert widget._layers[PAINTED].data.shape == widget.current.shape


def test_a_folder_with_labels(app, viewer, discs, tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    write_image(tmp_path / "images" / "a.tif", discs[0][0])
    write_labels(tmp_path / "masks" / "a.tif", discs[1][0] // 255)
    widget = TrainAndCorrect(viewer)
    widget.open_folder(tmp_path)
    assert widget.said.text() == "1 image, 1 of them with labels."
    assert widget.session.kind == "classes"  # foreground and background
    assert (widget._layers[PAINTED].data == painting_of(discs[1][0] // 255)).all()


def test_scale_and_place_of_a_layer_hold_for_what_is_painted(app, viewer):
    viewer.add_image(np.zeros((5, 30, 40)), name="x", scale=(3, 0.5, 0.5), translate=(0, 7, 9))
    widget = TrainAndCorrect(viewer)
    for name in (PAINTED, RESULT):
        assert list(viewer.layers[name].scale) == [0.5, 0.5]
        assert list(viewer.layers[name].translate) == [7, 9]
    widget.list.setCurrentRow(4)
    assert viewer.dims.point[0] == 12
    viewer.dims.set_point(0, 6)
    assert widget.current.plane == (2,)


def test_of_a_large_image_the_part_in_view(app, viewer, instance_model):
    levels = [np.zeros((5000, 4000), np.uint8), np.zeros((2500, 2000), np.uint8)]
    layer = viewer.add_image(levels, name="slide", multiscale=True)
    widget = TrainAndCorrect(viewer)
    image = widget.current
    assert widget._layers[PAINTED].data.shape == (1024, 1024)
    assert not widget.look_here.isHidden()
    layer._data_level = 0
    layer.corner_pixels = np.array([[100, 200], [700, 900]])
    widget.look_here.click()
    assert widget.current is image
    assert image.window == (slice(100, 700), slice(200, 900))
    assert list(viewer.layers[PAINTED].translate) == [100, 200]
    widget._layers[PAINTED].data[:5] = 2
    layer.corner_pixels = np.array([[3000, 3000], [3500, 3400]])
    widget.look_here.click()
    assert widget.current is not image
    assert widget.current.name == "slide at 3000, 3000"
    assert image.painting()[:5].all()
    widget.use_model(instance_model, "loaded")
    wait(lambda: widget.current.result_of is instance_model)
    assert viewer.layers[RESULT].data.shape == (500, 400)


def test_closing_a_layer_of_ours_loses_no_painting(widget, viewer, discs):
    paint(widget, discs[1][0] > 0)
    painted = widget._layers[PAINTED].data.copy()
    viewer.layers.remove(widget._layers[PAINTED])
    viewer.layers.remove(widget._layers[RESULT])
    assert widget.session.images[0].is_annotated
    widget.new_cell.click()
    assert (widget._layers[PAINTED].data == painted).all()


def test_a_model_opened_by_napari_comes_with_the_widget(make_napari_viewer, instance_model, tmp_path):
    if not os.environ.get("DISPLAY"):
        pytest.skip("no display: a window of napari needs OpenGL")
    instance_model.save(tmp_path / "model.safetensors")
    viewer = make_napari_viewer()
    viewer.open(tmp_path / "model.safetensors", plugin="ubend")
    [dock] = viewer.window.dock_widgets.values()
    wait(lambda: dock.session.model is not None)
    assert dock.said.text() == "model.safetensors is loaded."
    assert ubend.__version__ == dock.session.model.contract.provenance["versions"]["ubend"]


def test_an_image_that_the_model_cannot_take_is_not_asked_again(app, viewer, instance_model):
    viewer.add_image(np.zeros((30, 40)), name="gray")
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8), name="colour", rgb=True)
    widget = TrainAndCorrect(viewer)
    widget.use_model(instance_model, "loaded")
    wait(lambda: not widget.jobs.now and widget.session.images[0].unsure is not None)
    assert widget.session.images[1].unsure == 0
    assert "3 channels" in widget.said.text()


def test_ctrl_z_leaves_the_image_that_is_shown_next(app, viewer, discs):
    viewer.add_image(discs[0][0], name="first")
    viewer.add_image(discs[0][1][:30, :30], name="smaller")
    widget = TrainAndCorrect(viewer)
    paint(widget, discs[1][0] > 0)
    widget.list.setCurrentRow(1)
    layer = widget._layers[PAINTED]
    layer.data[:] = 5
    layer.undo()
    layer.redo()
    assert (layer.data == 5).all()


def test_progress_shows_of_a_training_that_had_to_wait(widget, discs):
    paint(widget, discs[1][0] > 0)
    begin = threading.Event()
    widget.jobs.put("rank", lambda: begin.wait(30), lambda _: None, pytest.fail)
    widget.train.click()
    widget._show_progress()  # the timer ticks while the other work is not done
    assert widget._timer.isActive()
    begin.set()
    wait(lambda: "left." in widget.said.text())
    widget.train.click()
    wait(lambda: widget.session.model is not None)


def test_napari_closing_ends_a_training(app, viewer, discs):
    viewer.add_image(discs[0][0], name="disc")
    widget = TrainAndCorrect(viewer)
    paint(widget, discs[1][0] > 0)
    widget.minutes.setValue(5)
    widget.train.click()
    wait(lambda: widget._progress is not None)
    widget.jobs._worker.quit()  # as napari does before it waits for all work to end
    assert QThreadPool.globalInstance().waitForDone(60_000)


def test_a_closed_widget_stops_and_the_next_goes_on(app, viewer, discs):
    viewer.add_image(np.stack(discs[0]), name="discs")
    dock, widget = QWidget(), TrainAndCorrect(viewer)
    widget.setParent(dock)
    paint(widget, discs[1][0] > 0)
    widget.list.setCurrentRow(1)
    paint(widget, discs[1][1] > 0)
    painted = [image.painting().copy() for image in widget.session.images]
    widget.minutes.setValue(5)
    widget.train.click()
    wait(lambda: widget._progress is not None)
    stop = widget._stop
    widget.setParent(None)  # as napari does when its cross is pressed
    QApplication.sendPostedEvents(None, QEvent.DeferredDelete.value)
    assert stop.is_set()
    QThreadPool.globalInstance().waitForDone()
    QApplication.processEvents()  # nobody is there to be told of the model
    again = TrainAndCorrect(viewer)
    assert [layer.name for layer in viewer.layers] == ["discs", RESULT, PAINTED]
    assert again.list.count() == 4
    assert all((image.painting() == was).all() for image, was in zip(again.session.images, painted, strict=True))
    viewer.dims.set_current_step(0, 2)
    assert again.current is again.session.images[2]


def test_units_of_a_layer_hold_for_what_is_painted(app, viewer):
    layer = viewer.add_image(np.zeros((5, 30, 40)), name="x", scale=(3, 0.5, 0.5), units=("um",) * 3)
    TrainAndCorrect(viewer)
    assert all(viewer.layers[name].units == layer.units[-2:] for name in (PAINTED, RESULT))


def test_of_a_large_colour_stack_the_part_in_view(app, viewer):
    layer = viewer.add_image(np.zeros((2, 3000, 2500, 3), np.uint8), name="slide", rgb=True)
    widget = TrainAndCorrect(viewer)
    layer.corner_pixels = np.array([[0, 1000, 500], [0, 1600, 900]])
    widget.look_here.click()
    assert widget.current.window == (slice(1000, 1600), slice(500, 900))
    viewer.layers.remove(layer)
    widget.show_image(widget.current)  # the part alone, where it was
    assert list(widget._own_image.translate) == list(widget._layers[PAINTED].translate) == [1000, 500]
    assert widget.look_here.isHidden()


def test_a_large_file_is_worked_on_whole(app, viewer, tmp_path):
    write_image(tmp_path / "a.tif", np.zeros((2100, 30), np.uint8))
    widget = TrainAndCorrect(viewer)
    widget.open_folder(tmp_path)
    assert widget._layers[PAINTED].data.shape == (2100, 30)
    assert widget.look_here.isHidden()


def test_segment_all_goes_on_after_an_image_that_cannot_be(app, viewer, discs, instance_model):
    broken = discs[0][1].astype(float)
    broken[0, 0] = np.nan
    for name, image in (("first", discs[0][0]), ("broken", broken), ("last", discs[0][2])):
        viewer.add_image(image, name=name)
    widget = TrainAndCorrect(viewer)
    widget.use_model(instance_model, "loaded")
    wait(lambda: not widget.jobs.now)
    widget.segment_all.click()
    wait(lambda: not widget.jobs.now)
    assert [image.result is not None for image in widget.session.images] == [True, False, True]
    assert widget.said.text().startswith("2 of 3 images are segmented")


def test_the_score_told_is_that_by_which_models_are_compared(instance_model):
    quality = {"IoU": 0.9, "AP@0.5 (pooled)": 0.71}
    scored = ubend.Model(instance_model.network, replace(instance_model.contract, quality=quality), device="cpu")
    assert _trained_words(scored).endswith(" On images held out: AP@0.5 (pooled) 0.71.")
