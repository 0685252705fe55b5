import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ubend.data.formats import read_images, write_labels
from ubend.errors import FileError, ModelFileError
from ubend.faces.pictures import data_uri
from ubend.faces.report import seconds_for_report, write_report
from ubend.run.inspection import inspect
from ubend.run.model import Model
from ubend.run.runs import train_folder

HOSTILE = ["<script>alert(1)<script>", '"><img src=x onerror=alert(1)>', "a'b&c;", "$title ${x} %s {0}"]
VOID = {"meta", "img", "input", "br", "link", "hr"}
LOADING = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Page(HTMLParser):
    """Reads a page, and minds that each element is closed where it should be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert len({name for name, _ in attributes}) == len(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\xa0", " ").split())


def write(folder, discs, names):
    for part, arrays in zip(("images", "masks"), discs, strict=True):
        (folder / part).mkdir(parents=True)
        for name, array in zip(names, arrays, strict=True):
            write_labels(folder / part / f"{name}.tif", array)
    return folder


def page_of(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode("utf-8")) < 5_000_000
    page = Page(text)
    check_self_contained(page)
    check_readable_by_ear(page)
    return page


def check_self_contained(page):
    for tag, attributes in page.tags:
        for name in LOADING & attributes.keys():
            value = attributes[name]
            if tag == "a":
                assert value.startswith(("#", "https://doi.org/"))
            else:
                assert value.startswith("data:image/jpeg;base64,")
        assert not [name for name in attributes if name.startswith("on")]
    [policy] = [a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    [script] = page.scripts
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert not re.search(r"https?:|@import|url\(", script)


def check_readable_by_ear(page):
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("h1")) == len(page.named("main")) == 1
    assert page.named("img")
    assert all(image["alt"].strip() for image in page.named("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.named("svg"))
    assert all(slider["aria-label"] for slider in page.named("input"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert all(a["href"][1:] in ids for a in page.named("a") if a["href"].startswith("#"))


@pytest.fixture(scope="module")
def binary(discs, tiny, tmp_path_factory):
    """A run on four images of hostile names."""
    folder = tmp_path_factory.mktemp("of a <b>report")
    data = write(folder / "data", discs, HOSTILE)
    train_folder(data, folder / "run", recipe=tiny, steps=3, device="cpu")
    return folder / "run", data


@pytest.fixture(scope="module")
def page(binary):
    return page_of(write_report(*binary, device="cpu", overwrite=True))


def test_names_of_files_are_text_and_nothing_else(page, binary):
    text = (binary[0] / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert "<b>report" not in text
    assert all(name in page.words for name in HOSTILE)
    assert "$" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL).replace("$title ${x} %s {0}", "")


def test_the_score_is_said_in_words_with_what_it_is_of(page):
    assert re.search(r"\d % of the foreground, in annotation or result, is in both", page.words)
    assert "on 1 image that the network never trained on" in page.words
    assert "from 3 annotated images" in page.words
    assert "1 more was held out" in page.words


def test_sections_commands_and_citations(page, binary):
    for title in (
        "Images it has never seen", "Where the network is unsure", "What to annotate next", "Scores", "How it learned",
        "How it was made", "Recipe", "Next", "How to cite",
    ):  # fmt: skip
        assert title in page.words
    assert "ubend predict '" in page.words
    assert "10.1007/978-3-319-24574-4_28" in page.words
    assert "learning_rate = 0.005" in page.words
    assert "The objects and their sizes" not in page.words


def test_the_slider_has_image_truth_and_result(page):
    assert len(page.named("input")) == 1
    assert [image["alt"].split(": ", 1)[1].split(" ")[:2] for image in page.named("img")][1:4] == [
        ["the", "image"], ["the", "annotated"], ["the", "foreground"],
    ]  # fmt: skip


def test_a_score_of_a_part_is_called_so_and_is_not_for_publication(binary, page, monkeypatch):
    assert "On 1 image that it was not trained on, IoU was" in page.words
    monkeypatch.setattr("ubend.run.inspection.LARGEST_SIDE", 40)
    cut = page_of(write_report(*binary, device="cpu", overwrite=True))
    assert "on the middle of 1 image that the network never trained on" in cut.words
    assert "IoU was" not in cut.words


def test_objects_have_counts_and_sizes(discs, tiny, tmp_path):
    data = write(tmp_path / "data", (discs[0], [mask // 255 for mask in discs[1]]), "abcd")
    model = train_folder(data, tmp_path / "run", recipe=tiny, steps=40, task="instances", device="cpu")
    page = page_of(write_report(tmp_path / "run", data, model=model))
    assert re.search(r"\d of 1 object found, (\d|none) missed, (\d+|none) invented", page.words)
    assert "The objects and their sizes" in page.words
    assert "The model file states AP@0.5 (pooled)" in page.words
    assert "<code>ubend train --folds 5</code>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_classes_have_a_row_each(discs, tiny, tmp_path):
    masks = [mask // 255 for mask in discs[1]]
    for mask in masks:
        mask[:9] = 2
    data = write(tmp_path / "data", (discs[0], masks), "abcd")
    train_folder(data, tmp_path / "run", recipe=tiny, steps=2, task="classes", device="cpu")
    page = page_of(write_report(tmp_path / "run", data, device="cpu"))
    assert re.search(r"\d % of the pixels get the right class", page.words)
    assert "Class by class" in page.words
    assert "share of the truth" in page.words


def test_without_held_out_images_it_does_not_boast(discs, tiny, tmp_path):
    data = write(tmp_path / "data", (discs[0][:2], discs[1][:2]), "ab")
    train_folder(data, tmp_path / "run", recipe=tiny, steps=2, device="cpu")
    page = page_of(write_report(tmp_path / "run", data, device="cpu"))
    assert "How good it is on new images, nobody knows yet" in page.words
    assert "No image was held out (there are fewer than three)" in page.words
    assert "Images the network was trained on" in page.words
    assert "never seen" not in page.words


def test_with_folds_the_score_is_theirs_and_the_images_are_marked(discs, tiny, tmp_path):
    data = write(tmp_path / "data", discs, "abcd")
    model = train_folder(data, tmp_path / "run", recipe=tiny, steps=2, folds=2, device="cpu")
    page = page_of(write_report(tmp_path / "run", data, device="cpu"))
    assert f"IoU {model.contract.quality['IoU']:.3f}" in page.words
    assert "over all 4 images, each predicted by a network that had not seen it (4 folds)" in page.words
    assert "Images the network was trained on" in page.words


def test_the_first_caption_explains_only_what_is_in_its_picture(binary, monkeypatch):
    def with_results(make):
        def changed(*given, **named):
            seen = inspect(*given, **named)
            return replace(seen, images=tuple(replace(one, result=make(one.truth)) for one in seen.images))

        monkeypatch.setattr("ubend.faces.report.inspect", changed)
        return page_of(write_report(*binary, device="cpu", overwrite=True)).words.split(" Images it has never seen")[0]

    assert "outlined in orange what was found; filled with pink the pixels that" in with_results(
        lambda truth: np.full_like(truth, 255)
    )
    right = with_results(lambda truth: truth)
    assert right.endswith("outlined in orange what was found.")
    assert with_results(np.zeros_like).endswith("where nothing was found.")


def test_one_image_is_no_list_of_what_to_annotate_next(binary, page, discs, tmp_path):
    assert "The network can rank the images that nobody has annotated yet:" in page.words
    assert "the first of these" not in page.words
    assert not page.named("svg") or "meter" not in [attributes.get("class") for attributes in page.named("span")]
    write_labels(tmp_path / "new.tif", discs[0][0])
    one = page_of(write_report(*binary, images=tmp_path, device="cpu", overwrite=True))
    assert "What to annotate next" not in one.words


def test_for_want_of_time_it_says_how_to_look_at_all(binary, model, tmp_path):
    made = model.contract.provenance
    unknown = Model(model.network, replace(model.contract, provenance=made | {"images": {}}), device="cpu")
    unknown.save(tmp_path / "model.safetensors")
    page = page_of(write_report(tmp_path, binary[1], seconds=0, device="cpu"))
    assert "1 image that the network was not trained on. There was no time for the others: ubend report" in page.words
    assert "--overwrite looks at all of them." in page.words


def test_unlabelled_images_are_ranked(binary, discs, tmp_path):
    for k, image in enumerate(discs[0]):
        write_labels(tmp_path / f"new{k}.tif", image)
    page = page_of(write_report(*binary, images=tmp_path, device="cpu", overwrite=True))
    assert "Of the images without labels, those that would teach the network most come first." in page.words
    assert all(f"new{k}" in page.words for k in range(4))


def test_a_report_that_is_there_is_not_replaced(binary):
    with pytest.raises(FileError, match="exists already"):
        write_report(*binary)


def test_no_model_no_report(binary, tmp_path):
    with pytest.raises(FileError, match="no model file"):
        write_report(tmp_path, binary[1])
    (tmp_path / "model.safetensors").write_text("none")
    with pytest.raises(ModelFileError):
        write_report(tmp_path, binary[1])


@pytest.mark.parametrize(
    "log", [None, "", "step,seconds\n1,2\n", "step,seconds,energy,learning_rate,waiting\n1,x,2,3,4\n"]
)
def test_a_log_that_is_missing_or_cut_off_is_left_out(log, binary, model, tmp_path):
    if log is not None:
        (tmp_path / "log.csv").write_text(log)
    made = model.contract.provenance
    known = Model(model.network, replace(model.contract, provenance=made | {"images": {}}), device="cpu")
    known.save(tmp_path / "model.safetensors")
    page = page_of(write_report(tmp_path, binary[1], device="cpu"))
    assert "How it learned" not in page.words


def test_the_time_for_a_report_keeps_the_promise_of_minutes():
    assert [seconds_for_report(minutes) for minutes in (0, 0.5, 1, 60)] == [3.0, 0.6, 1.2, 3.0]


def test_a_picture_in_a_page_is_small_and_the_same(tmp_path):
    picture = np.zeros((40, 2000, 3), np.uint8)
    picture[:, 1000:] = (255, 0, 0)
    kind, content = data_uri(picture).split(",")
    assert kind == "data:image/jpeg;base64"
    (tmp_path / "a.jpg").write_bytes(base64.b64decode(content))
    [read] = read_images(tmp_path / "a.jpg")
    assert read.pixels.shape == (20, 1024, 3)
    assert np.abs(read.pixels[10, 900].astype(int) - (255, 0, 0)).max() < 12


def test_a_noisy_picture_is_encoded_too():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3)).astype(np.uint8)
    assert len(data_uri(noise)) > 1_000_000


# in a browser

browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt-get install chromium")


def in_chromium(page, tmp_path, *options):
    return subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", *options, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


PROBE = """
<script>
addEventListener("load", () => {
  const figure = document.querySelector(".compare"), slider = figure.querySelector("input");
  const result = figure.querySelectorAll(".pane")[2];
  const say = () => [slider.value, slider.getAttribute("aria-valuetext"), result.style.clipPath];
  const told = [say()];
  figure.querySelectorAll(".stops button")[1].click();
  told.push(say());
  slider.value = "50"; slider.dispatchEvent(new Event("input"));
  told.push(say());
  const wide = document.documentElement.scrollWidth - innerWidth;
  const broken = [...document.images].filter((image) => !(image.complete && image.naturalWidth)).length;
  document.title = JSON.stringify({ told, wide, broken });
});
</script>
"""


@browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
def test_in_a_browser_it_moves_fits_and_does_not_complain(page, binary, tmp_path, width):
    text = (binary[0] / "report.html").read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"  # the policy would refuse a second script
    probed.write_text(
        re.sub(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", text) + PROBE, encoding="utf-8"
    )
    said = in_chromium(probed, tmp_path, "--dump-dom", f"--window-size={width},900")
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", said.stdout)[1]))
    assert found["told"] == [
        ["200", "result", "inset(0px 0% 0px 0px)"],
        ["100", "truth", "inset(0px 100% 0px 0px)"],
        ["50", "image to truth, 50 %", "inset(0px 100% 0px 0px)"],
    ]
    assert found["wide"] <= 0
    assert found["broken"] == 0
    assert "CONSOLE" not in said.stderr


@browser
@pytest.mark.slow
def test_the_page_itself_runs_under_its_own_policy(page, binary, tmp_path):
    said = in_chromium(binary[0] / "report.html", tmp_path, "--dump-dom")
    assert 'class="compare live"' in said.stdout
    assert "CONSOLE" not in said.stderr
    in_chromium(binary[0] / "report.html", tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
