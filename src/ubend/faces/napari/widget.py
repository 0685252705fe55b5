"""The dock widget: choose images, paint a few cells, train, look, correct, train on."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import CyclicLabelColormap
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ubend.errors import UbendError
from ubend.faces.napari.images import Shown, images_in_folder, part_seen, planes_of
from ubend.faces.napari.jobs import Jobs
from ubend.faces.napari.painting import (
    BACKGROUND,
    FIRST,
    colours,
    corrected,
    new_number,
    painting_of,
    with_the_rest_background,
)
from ubend.faces.napari.session import Session, segment, train_on, unsure_of
from ubend.run.normalisation import count

if TYPE_CHECKING:
    from ubend.run.model import Model
    from ubend.run.training import Progress

__all__ = ["TrainAndCorrect"]

PAINTED, RESULT = "painted", "result"
_OURS = "session of ubend"
MINUTES = 2.0
_KEPT = ("opacity", "visible", "blending", "contour", "brush_size", "contiguous", "preserve_labels", "mode")
"""What a person has set of a layer, and finds again on the next image."""
_KINDS = {"single cells, also touching ones": "instances", "classes: tissue, sky, trees …": "classes"}
_FIRST_STEPS = (
    "1. Open a folder, or drop images into napari.\n"
    "2. Paint a few whole cells, each with New cell, and a stroke of Background. What is not painted is not used.\n"
    "3. Train. The result appears; correct it, or paint more, and train on."
)


class TrainAndCorrect(QWidget):  # type: ignore[misc]
    """Paint, train, look, correct, train on.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        Image layers that it shows, or gets later, are images of the session.

    Attributes
    ----------
    session : Session
        Images, what is painted on them, and the model.
    current : Shown or None
        The image that is shown.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = _left_by_a_closed_widget(napari_viewer) or Session()
        self.current: Shown | None = None
        self.jobs = Jobs(self._on_jobs, self)
        self._layers: dict[str, Any] = {}
        self._own_image: Any = None
        self._busy_with_layers = False
        self._stop = threading.Event()
        self._progress: Progress | None = None
        self._plan = ""
        self._timer = QTimer(self)
        self._timer.setInterval(200)
        self._timer.timeout.connect(self._show_progress)
        self._build()
        self._set_kind(self.session.kind)
        for image in self.session.images:
            self.list.addItem(QListWidgetItem(image.name))
            self._describe(image)
        known = {id(image.layer) for image in self.session.images}
        for layer in list(self.viewer.layers):
            if id(layer) not in known:
                self._take_layer(layer)
        self._follow = (
            (self.viewer.layers.events.inserted, self._on_inserted),
            (self.viewer.layers.events.removed, self._on_removed),
            (self.viewer.dims.events.current_step, self._on_slider),
        )
        for emitter, slot in self._follow:
            emitter.connect(slot)
        self.destroyed.connect(self._stop.set)
        if self.session.images:
            self.show_image(self.session.images[0])
        self._refresh()

    def event(self, event: Any) -> bool:
        """Handle an event of Qt: napari drops a widget that is closed, out of its dock, and never shows it again."""
        if event.type() == QEvent.ParentChange and self.parent() is None:
            self._keep_painting()
            for emitter, slot in self._follow:
                emitter.disconnect(slot)
            self.deleteLater()
        return bool(super().event(event))

    # what it looks like

    def _build(self) -> None:
        self.list = QListWidget()
        self.list.setMinimumHeight(90)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.list.currentRowChanged.connect(self._on_row)
        self.load = _button("Load model…", self._on_load, "A model.safetensors, to look at or to train on from")
        self.next = _button("Next to annotate", self._on_next, "The image of which the model is least sure")
        self.look_here = _button("Work on what is seen", self._on_look_here, "Of a large image: move to this part")
        images = _group(
            "Images",
            _row(
                _button("Open folder…", self._on_open, "Images, or images with labels in any common layout"),
                self.load,
            ),
            self.list,
            _row(self.next, self.look_here),
        )
        self.kind = QComboBox()
        self.kind.addItems(list(_KINDS))
        self.kind.currentTextChanged.connect(self._on_kind)
        self.new_cell = _button("New cell", self._on_new_cell, "Paint a cell that has no colour yet")
        self.background = _button("Background", partial(self._paint_with, BACKGROUND), "Paint where no cell is")
        self.rest = _button("The rest is background", self._on_rest, "All cells of this image are painted")
        self.correct = _button("Correct the result", self._on_correct, "Take the result for a painting; yours stays")
        self.take = _button(
            "Take a labels layer", self._on_take, "Use the selected labels layer as painting: 0 is background"
        )
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("What", self.kind)
        paint = _group("Paint", form, _row(self.new_cell, self.background), _row(self.rest, self.correct), self.take)
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 600.0)
        self.minutes.setDecimals(1)
        self.minutes.setValue(MINUTES)
        self.minutes.setSuffix(" min")
        self.begin = QComboBox()
        self.begin.addItems(["train on from the model", "train anew"])
        self.train = _button("Train", self._on_train, "On all that is painted")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        train = _group("Train", self.begin, _row(self.minutes, self.train), self.bar)
        self.segment = _button("Segment", self._on_segment, "This image, or the part of it that is worked on")
        self.segment_all = _button("Segment all", self._on_segment_all, "All images of the list")
        self.save = _button("Save…", self._on_save, "Painting, model, results and tables of objects, into a folder")
        result = _group("Result", _row(self.segment, self.segment_all), self.save)
        self.said = QLabel(_FIRST_STEPS)
        self.said.setWordWrap(True)
        self.said.setTextInteractionFlags(Qt.TextSelectableByMouse)
        self.said.setAlignment(Qt.AlignTop)
        self.said.setMinimumHeight(110)
        layout = QVBoxLayout(self)
        for part in (images, paint, train, result, self.said):
            layout.addWidget(part, stretch=part is images)

    def _refresh(self) -> None:
        """Bring buttons and list into line with what there is."""
        has_image, model, busy = self.current is not None, self.session.model, self.jobs.now
        training = busy == "train"
        for button in (self.new_cell, self.background, self.rest, self.take):
            button.setEnabled(has_image)
        self.new_cell.setText("New cell" if self.session.kind == "instances" else "New class")
        self.correct.setEnabled(self.current is not None and self.current.result is not None)
        self.train.setEnabled(bool(self.session.images) and not (training and self._stop.is_set()))
        self.train.setText("Stop, and keep the model" if training else "Train")
        self.begin.setVisible(model is not None)
        self.kind.setEnabled(not training)
        may_segment = model is not None and busy in ("", "rank")
        self.segment.setEnabled(has_image and may_segment)
        self.segment_all.setEnabled(may_segment)
        self.save.setEnabled(bool(self.session.images) or model is not None)
        self.next.setEnabled(self.session.next_to_annotate() is not None)
        now = self.current
        self.look_here.setVisible(now is not None and now.window is not None and self._is_shown(now))
        if now is not None:
            self._describe(now)
        self.load.setEnabled(not training)

    def _describe(self, image: Shown) -> None:
        """Say in its row of the list what is known of an image."""
        item, words = self.list.item(self.session.images.index(image)), image.in_words()
        item.setText(f"{image.name}   {words}" if words else image.name)
        item.setToolTip(image.name)

    def _on_jobs(self) -> None:
        self._refresh()
        if not self.jobs.now:
            self._rank()

    def say(self, text: str) -> None:
        """Show a sentence at the foot of the widget."""
        self.said.setText(text)

    @contextlib.contextmanager
    def _saying_errors(self) -> Iterator[None]:
        try:
            yield
        except UbendError as error:
            self.say(_sentence(str(error)))

    # images

    def _on_open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Images, or images with labels")
        if folder:
            self.open_folder(folder)

    def open_folder(self, folder: str | Path) -> None:
        """Take in the images of a folder, and the labels that it holds."""
        with self._saying_errors():
            listed, kind = images_in_folder(folder)
            found = self._add(listed)
            if kind is not None:
                self._set_kind(kind)
            with_labels = sum(image.labels is not None for image in found)
            self.say(f"{count(len(found), 'image')}, {with_labels} of them with labels.")
            if found:
                self.show_image(found[0])

    def _add(self, found: list[Shown]) -> list[Shown]:
        new = self.session.add(found)
        with _silent(self.list):
            for image in new:
                self.list.addItem(QListWidgetItem(image.name))
                self._describe(image)
        self._refresh()
        return new

    def _take_layer(self, layer: Any) -> None:
        """Take in the images of a layer that a person has opened."""
        if not isinstance(layer, Image) or layer is self._own_image:
            return
        data = layer.data[0] if layer.multiscale else layer.data
        path = Path(layer.source.path) if layer.source.path else None
        with self._saying_errors():
            self._add(
                planes_of(layer.name, data, colour=layer.rgb, layer=layer, path=path, pixel_size=_micrometres(layer))
            )

    def _on_inserted(self, event: Any) -> None:
        if self._busy_with_layers:
            return
        before = len(self.session.images)
        self._take_layer(event.value)
        if self.current is None and len(self.session.images) > before:
            self.show_image(self.session.images[before])

    def _on_removed(self, event: Any) -> None:
        """Keep what was painted when a person closes a layer: its images are shown in a layer of ours from then on."""
        if self._busy_with_layers:
            return
        for name, layer in list(self._layers.items()):
            if layer is event.value:
                self._keep_painting(layer if name == PAINTED else None)
                del self._layers[name]
        if event.value is self._own_image:
            self._own_image = None
        for image in self.session.images:
            if image.layer is event.value:
                image.layer = None

    def _on_row(self, row: int) -> None:
        if 0 <= row < len(self.session.images) and self.session.images[row] is not self.current:
            self.show_image(self.session.images[row])

    def _on_next(self) -> None:
        if (image := self.session.next_to_annotate()) is not None:
            self.show_image(image)

    def _on_slider(self, _event: Any = None) -> None:
        """Follow the slider of a stack."""
        if self._busy_with_layers or self.current is None or self.current.layer is None or not self.current.plane:
            return
        point = self.current.layer.world_to_data(self.viewer.dims.point)
        plane = tuple(round(float(x)) for x in point[: len(self.current.plane)])
        if plane != self.current.plane:
            same = [i for i in self.session.images if i.layer is self.current.layer and i.plane == plane]
            for image in same[:1]:
                self.show_image(image)

    def show_image(self, image: Shown) -> None:
        """Show an image, what is painted on it, and its result; segment it if there is a model and no result yet."""
        self._keep_painting()
        with self._saying_errors(), self._changing_layers():
            painted = image.painting()
            self.current = image
            self._show_pixels(image)
            result = image.result if image.result is not None else np.zeros(painted.shape, np.uint8)
            self._show_labels(RESULT, np.asarray(result), image)
            layer = self._show_labels(PAINTED, painted, image)
            self.viewer.layers.selection.active = layer
            with _silent(self.list):
                self.list.setCurrentRow(self.session.images.index(image))
        if self.current is image and self.session.model is not None and image.result_of is not self.session.model:
            self._segment_one(image, may_be_dropped=True)
        self._refresh()

    def _is_shown(self, image: Shown) -> bool:
        """Whether a layer of a person shows it."""
        return image.layer is not None and image.layer in self.viewer.layers

    def _show_pixels(self, image: Shown) -> None:
        mine = self._is_shown(image)
        if self._own_image is not None and self._own_image in self.viewer.layers:
            self.viewer.layers.remove(self._own_image)
        self._own_image = None
        shown = {id(other.layer) for other in self.session.images if other.layer is not None}
        for layer in self.viewer.layers:
            if id(layer) in shown:
                layer.visible = mine and layer is image.layer
        if not mine:
            pixels, _ = image.pixels()
            colour = pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
            data = pixels if colour or pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
            place = None if image.window is None else image.offset
            self._own_image = self.viewer.add_image(
                data, name=image.name, rgb=colour, translate=place, metadata={_OURS: self.session}
            )
            self.viewer.layers.move(self.viewer.layers.index(self._own_image), 0)
            self.viewer.reset_view()
        elif image.plane:
            stack = len(image.plane)
            world = image.layer.data_to_world((*image.plane, *([0] * (image.layer.ndim - stack))))
            first = self.viewer.dims.ndim - image.layer.ndim
            for axis in range(stack):
                self.viewer.dims.set_point(first + axis, world[axis])

    def _show_labels(self, name: str, data: Any, image: Shown) -> Any:
        layer = self._layers.get(name)
        if layer is not None and layer in self.viewer.layers and name == RESULT:
            layer.data = data
        else:
            layer = self._new_labels(name, data, layer)
        below = image.layer
        scale, offset, units = (1.0, 1.0), (0.0, 0.0), ("pixel", "pixel")
        if self._is_shown(image):
            scale, offset = tuple(below.scale[-2:]), tuple(below.translate[-2:])
            units = below.units[-2:]
        layer.scale, layer.units = scale, units
        layer.translate = [o + s * at for o, s, at in zip(offset, scale, image.offset, strict=True)]
        layer.refresh()
        return layer

    def _new_labels(self, name: str, data: Any, before: Any) -> Any:
        """Add a layer in the place of one before; to paint each image has its own, or Ctrl-Z would mix them."""
        kept = {} if before is None else {key: getattr(before, key) for key in _KEPT}
        if before is not None and before in self.viewer.layers:
            self.viewer.layers.remove(before)
        layer = self.viewer.add_labels(data, name=name, metadata={_OURS: self.session})
        layer.colormap = CyclicLabelColormap(colors=colours() if name == PAINTED else np.delete(colours(), 1, 0))
        layer.opacity, layer.contour = (0.6, 0) if name == PAINTED else (0.5, 2)
        for key, value in kept.items():
            setattr(layer, key, value)
        if name == PAINTED:
            layer.events.paint.connect(self._on_paint)
        self._layers[name] = layer
        return layer

    def _keep_painting(self, layer: Any = None) -> None:
        layer = self._layers.get(PAINTED) if layer is None else layer
        if self.current is not None and layer is not None:
            self.current.painted = layer.data

    @contextlib.contextmanager
    def _changing_layers(self) -> Iterator[None]:
        before, self._busy_with_layers = self._busy_with_layers, True
        try:
            yield
        finally:
            self._busy_with_layers = before

    def _on_look_here(self) -> None:
        """Move the part of a large image that is worked on; one that is painted stays, and this is another."""
        image = self.current
        if image is None or not self._is_shown(image):
            return
        part = part_seen(image.shape, self._corners(image))
        self._keep_painting()
        if image.is_annotated:
            name = f"{image.name.split(' at ')[0]} at {part[0].start}, {part[1].start}"
            other = Shown(
                name, image.read, image.shape, image.layer, image.plane, image.path, image.pixel_size, window=part
            )
            self._add([other])
            self.show_image(other)
            return
        image.window, image.painted, image.result, image.result_of = part, None, None, None
        with self._changing_layers():
            for layer in self._layers.values():
                self.viewer.layers.remove(layer)
            self._layers.clear()
        self.show_image(image)

    def _corners(self, image: Shown) -> tuple[list[float], list[float]]:
        """First and last pixel of a layer that is in view, in the pixels of its largest level."""
        layer = image.layer
        corners = np.asarray(layer.corner_pixels, float)[:, -2:]
        if layer.multiscale:
            corners = corners * np.asarray(layer.downsample_factors[layer.data_level], float)[-2:]
        return list(corners[0]), list(corners[1])

    # painting

    def _on_kind(self, words: str) -> None:
        self.session.kind = _KINDS[words]  # type: ignore[assignment]
        if self.session.model is not None and self.session.model.contract.task.kind != self.session.kind:
            self.begin.setCurrentIndex(1)
        self._refresh()

    def _set_kind(self, kind: str) -> None:
        self.kind.setCurrentText(next(words for words, value in _KINDS.items() if value == kind))

    def _on_new_cell(self) -> None:
        self._keep_painting()
        if self.session.kind == "instances":
            number = new_number(self._layers[PAINTED].data) if PAINTED in self._layers else FIRST
        else:
            number = max((new_number(i.painted) for i in self.session.images if i.painted is not None), default=FIRST)
        self._paint_with(number)

    def _paint_with(self, number: int) -> None:
        layer = self._layers.get(PAINTED)
        if layer is None:
            if self.current is not None:
                self.show_image(self.current)
            layer = self._layers.get(PAINTED)
        if layer is not None:
            self.viewer.layers.selection.active = layer
            layer.selected_label = number
            layer.mode = "paint"

    def _on_paint(self, _event: Any = None) -> None:
        self._keep_painting()
        self._refresh()

    def _repaint(self, wanted: Any) -> None:
        """Paint what is wanted where it differs, so that it can be undone."""
        layer = self._layers[PAINTED]
        where = np.nonzero(layer.data != wanted)
        if where[0].size:
            layer.data_setitem(where, wanted[where])
        self._on_paint()

    def _on_rest(self) -> None:
        if PAINTED in self._layers:
            self._repaint(with_the_rest_background(self._layers[PAINTED].data))

    def _on_correct(self) -> None:
        if self.current is None or self.current.result is None or PAINTED not in self._layers:
            return
        with self._saying_errors():
            numbers = self.session.kind == "instances"
            self._repaint(corrected(self._layers[PAINTED].data, self.current.result, numbers=numbers))
            self._paint_with(BACKGROUND)
            self.say("The result is now painted: mend it, erase (0) what you are not sure of, and train on.")

    def _on_take(self) -> None:
        layer = self.viewer.layers.selection.active
        if self.current is None or PAINTED not in self._layers:
            return
        if not isinstance(layer, Labels) or layer in self._layers.values():
            self.say("Select the labels layer to take in the list of layers, then press the button again.")
            return
        labels = np.asarray(layer.data)
        labels = labels[self.current.plane] if labels.ndim == 2 + len(self.current.plane) else labels
        shape = self._layers[PAINTED].data.shape
        if self.current.window is not None and labels.shape[:2] == self.current.shape:
            labels = labels[self.current.window]
        if labels.shape != shape:
            self.say(f"{layer.name} has the shape {labels.shape}, the image {shape}: they do not lie on each other.")
            return
        with self._saying_errors():
            self._repaint(painting_of(labels))
            layer.visible = False

    # training

    def _on_train(self) -> None:
        if self.jobs.now == "train":
            self._stop.set()
            self.say("Stopping after this step; the model so far is kept.")
            self._refresh()
            return
        self._keep_painting()
        with self._saying_errors():
            material = self.session.annotated()
            self._stop.clear()
            self._progress, self._plan = None, ""
            start = self.session.model if self.begin.currentIndex() == 0 else None
            work = partial(
                train_on, material, self.session.kind, minutes=self.minutes.value(), start=start,
                on_plan=self._on_plan, on_step=self._on_step,
            )  # fmt: skip
            self.jobs.forget()
            self.jobs.put("train", work, self._on_trained, self._on_failed)
            self._timer.start()
            self.say("Measuring how fast this machine is …")
            self._refresh()

    def _on_plan(self, contract: Any, trained_on: int, held_out: int) -> None:
        """Note, in the thread that trains, what will be done."""
        of = count(trained_on, "image") + (f", {held_out} more held out" if held_out else "")
        self._plan = f"Training on {of}: {contract.provenance['plan'][0].split(';')[0]}."

    def _on_step(self, progress: "Progress") -> bool:
        """Note, in the thread that trains, where it is; say whether it is to stop."""
        self._progress = progress
        return self._stop.is_set() or self.jobs.must_end

    def _show_progress(self) -> None:
        if self.jobs.now == "train" and self._progress is not None and not self._stop.is_set():
            now = self._progress
            self.bar.setValue(round(1000 * now.share))
            left = max(0, round(now.seconds_left))
            self.say(f"{self._plan}\nStep {now.step}, energy {now.energy:.3f}, {left // 60}:{left % 60:02d} left.")
        if not self.jobs.has("train"):
            self._timer.stop()
            self.bar.setValue(0)

    def _on_trained(self, model: "Model") -> None:
        self.use_model(model, _trained_words(model))

    def _on_failed(self, reason: str) -> None:
        self.say(_sentence(reason))

    def use_model(self, model: "Model", words: str) -> None:
        """Take a model, show its result on the image in view at once, then rank the other images."""
        self.session.use(model)
        self._set_kind("instances" if model.contract.task.kind == "instances" else "classes")
        self.begin.setCurrentIndex(0)
        for image in self.session.images:
            self._describe(image)
        self.say(words)
        if self.current is not None:
            self._segment_one(self.current)
        self._on_jobs()

    def _on_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "A model of ubend", filter="Models (*.safetensors)")
        if path:
            self.load_model(path)

    def load_model(self, path: str | Path) -> None:
        """Load a model from its file, or from the folder of its run."""

        def work() -> "Model":
            from ubend.run.model import load

            return load(path)

        self.jobs.put(
            "load", work, lambda model: self.use_model(model, f"{Path(path).name} is loaded."), self._on_failed
        )

    # results

    def _segment_one(
        self, image: Shown, *, may_be_dropped: bool = False, then: Callable[[], None] | None = None
    ) -> None:
        model = self.session.model
        assert model is not None

        def done(result: Any) -> None:
            image.result, image.result_of = result, model
            if image is self.current:
                with self._changing_layers():
                    self._show_labels(RESULT, result, image)
                self._say_result(image.name, int(result.max(initial=0)))
            if then is not None:
                then()

        def failed(reason: str) -> None:
            self._on_failed(reason)
            if then is not None:
                then()

        self.jobs.put("segment", partial(segment, model, image), done, failed, may_be_dropped=may_be_dropped)

    def _say_result(self, name: str, largest: int) -> None:
        first = self.said.text().split("\n")[0]
        lines = [first] if first.startswith("Trained") else []
        lines += [f"{count(largest, 'object')} in {name}."] if self.session.kind == "instances" else []
        self.say("\n".join(lines))

    def _on_segment(self) -> None:
        if self.current is not None:
            self._segment_one(self.current)

    def _on_segment_all(self) -> None:
        model = self.session.model
        left = [image for image in self.session.images if image.result_of is not model]
        if self.current in left:
            left.insert(0, left.pop(left.index(self.current)))
        self._segment_rest(left, len(left))

    def _segment_rest(self, left: list[Shown], of: int) -> None:
        if not left:
            images, model = self.session.images, self.session.model
            found = [i.result for i in images if i.result is not None and i.result_of is model]
            objects = (
                f", {sum(int(r.max(initial=0)) for r in found)} objects" if self.session.kind == "instances" else ""
            )
            if len(found) == len(images):
                self.say(f"All {len(images)} images are segmented{objects}. Save… writes them.")
            else:
                missing = next(i for i in images if i.result_of is not model)
                self.say(
                    f"{len(found)} of {len(images)} images are segmented{objects}. Of the others is {missing.name}: "
                    "Segment says why."
                )
            return
        self._segment_one(left[0], then=partial(self._segment_rest, left[1:], of))
        self.say(f"Segmenting {of - len(left) + 1} of {of}: {left[0].name}")

    def _rank(self) -> None:
        """Look how unsure the model is of one image more; other work goes before."""
        model = self.session.model
        left = [image for image in self.session.images if image.unsure is None and not image.is_annotated]
        if model is None or not left:
            return
        image = left[0]

        def done(unsure: float) -> None:
            if self.session.model is model:
                image.unsure = unsure
                self._describe(image)

        def failed(reason: str) -> None:
            image.unsure = 0.0  # it is not asked again
            self._on_failed(reason)

        self.jobs.put("rank", partial(unsure_of, model, image), done, failed, may_be_dropped=True)

    def _on_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A folder for painting, model and results")
        if folder:
            self.save_to(folder)

    def save_to(self, folder: str | Path) -> None:
        """Write what is painted, the model, the results and their tables into a folder."""
        self._keep_painting()
        with self._saying_errors():
            written = self.session.save(folder)
            self.say(f"{len(written)} files in {folder}. Opened again with Open folder…, it goes on from there.")


def _left_by_a_closed_widget(viewer: Any) -> Session | None:
    """Take its layers out of the viewer, and from them the session: what was painted is not lost."""
    left = None
    for layer in [layer for layer in viewer.layers if _OURS in layer.metadata]:
        left = layer.metadata[_OURS]
        viewer.layers.remove(layer)
    return left


def _trained_words(model: "Model") -> str:
    from ubend.run.scoring import HEADLINES

    made, quality, name = model.contract.provenance, model.contract.quality, HEADLINES[model.contract.task.kind]
    words = f"Trained {made['steps']} steps in {made['minutes']:.1f} min."
    if name in quality:
        return f"{words} On images held out: {name} {quality[name]:.2f}."
    if made.get("held_out"):
        return f"{words} There is nothing to score on the images held out."
    return f"{words} No image is held out below five that are painted: judge it on images without paint."


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _micrometres(layer: Any) -> float | None:
    """Micrometres a pixel, where a layer says so."""
    rows, columns = (str(unit) for unit in layer.units[-2:])
    size = float(layer.scale[-1])
    square = np.isclose(layer.scale[-2], layer.scale[-1])
    return size if square and rows == columns == "micrometer" else None


def _button(text: str, pressed: Callable[[], object], tip: str) -> Any:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(lambda: pressed())
    return button


def _row(*parts: Any) -> Any:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        row.addWidget(part)
    return row


def _group(title: str, *parts: Any) -> Any:
    group = QGroupBox(title)
    layout = QVBoxLayout(group)
    for part in parts:
        layout.addWidget(part) if isinstance(part, QWidget) else layout.addLayout(part)
    return group


@contextlib.contextmanager
def _silent(widget: Any) -> Iterator[None]:
    """Within the block, a widget tells of no change."""
    widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(False)
