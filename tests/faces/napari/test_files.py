import json
from pathlib import Path

import numpy as np
import pytest

import ubend.faces.napari as plugin
from ubend.data.formats import read_labels, write_labels
from ubend.faces.napari import files
from ubend.faces.napari.files import model_reader, results_reader, write_labels_layer
from ubend.run.folders import predict_folder


@pytest.fixture
def results(discs, instance_model, tmp_path):
    """Two images segmented, with their tables."""
    (tmp_path / "images").mkdir()
    for k in range(2):
        write_labels(tmp_path / "images" / f"disc{k}.tif", discs[0][k])
    predict_folder(instance_model, tmp_path / "images", tmp_path / "results")
    return tmp_path / "results"


def test_results_come_with_their_measurements(results):
    table = str(results / "objects.csv")
    layers = results_reader(table)(table)
    assert [options["name"] for _, options, kind in layers if kind == "labels"] == ["disc0", "disc1"]
    for pixels, options, _ in layers:
        [read] = read_labels(results / f"{options['name']}.tif")
        assert (pixels == read.pixels).all()
        features = options["features"]
        assert features["index"].tolist() == list(range(1, int(pixels.max()) + 1))
        assert features["area_px"][0] == (pixels == 1).sum()
    assert [options["visible"] for _, options, _ in layers] == [True, False]


def test_the_table_of_one_image(results):
    table = str(results / "disc1_objects.csv")
    [(_, options, _)] = results_reader([table])([table])
    assert options["name"] == "disc1"


def test_other_tables_and_models_are_left_to_others(tmp_path):
    (tmp_path / "objects.csv").write_text("a,b\n")
    assert results_reader(str(tmp_path / "objects.csv")) is None
    assert results_reader("points.csv") is None
    assert model_reader("cells.tif") is None
    assert model_reader(["a.safetensors"]) is not None


def test_a_labels_layer_is_written_with_its_table(tmp_path):
    labels = np.array([[0, 1, 1], [2, 2, 2]])
    meta = {"scale": (0.5, 0.5), "units": ("micrometer", "micrometer")}
    written = write_labels_layer(str(tmp_path / "a.tif"), labels, meta)
    [read] = read_labels(written[0])
    assert (read.pixels == labels).all()
    assert read.pixel_size == pytest.approx(0.5)
    assert Path(written[1]).read_text().splitlines()[0].startswith("id,centroid_row_px,")
    write_labels_layer(str(tmp_path / "a.tif"), labels, {})
    [read] = read_labels(written[0])
    assert read.pixel_size is None


def test_a_table_of_others_is_not_replaced(tmp_path):
    (tmp_path / "a_objects.csv").write_text("by hand")
    with pytest.raises(ValueError, match="give the labels another name"):
        write_labels_layer(str(tmp_path / "a.tif"), np.eye(2, dtype=int), {})
    assert not (tmp_path / "a.tif").exists()
    with pytest.raises(ValueError, match="this image holds -1"):
        write_labels_layer(str(tmp_path / "b.tif"), -np.eye(2, dtype=int), {})


@pytest.mark.parametrize("scene", ["cells", "nuclei", "membranes", "landscape"])
def test_samples_have_their_truth(scene):
    (images, of_images, kind), (truth, of_truth, _) = getattr(files, f"sample_{scene}")()
    assert kind == "image"
    assert of_images["rgb"] is (scene == "landscape")
    assert images.shape[:3] == truth.shape
    assert not of_truth["visible"]


def test_the_manifest_names_what_exists():
    """Also where napari is not installed: YAML of this kind is read line by line."""
    manifest = (Path(plugin.__file__).parent / "napari.yaml").read_text()
    named = [line.split(": ")[1] for line in manifest.splitlines() if "python_name" in line]
    assert len(named) == 8
    for name in named:
        module, attribute = name.split(":")
        source = Path(plugin.__file__).parent / f"{module.rsplit('.', 1)[1]}.py"
        assert f"def {attribute}(" in source.read_text() or f"class {attribute}(" in source.read_text()
    commands = {line.split("- id: ")[1] for line in manifest.splitlines() if "- id:" in line}
    used = {line.split("command: ")[1] for line in manifest.splitlines() if "command: " in line}
    assert used == commands


def test_npe2_takes_the_manifest():
    npe2 = pytest.importorskip("npe2", reason="the extra napari is not installed: pip install 'napari[pyqt6]'")
    manifest = npe2.PluginManifest.from_distribution("ubend")
    manifest.validate_imports()
    assert json.loads(manifest.json())["name"] == "ubend"
