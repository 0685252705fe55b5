"""Scoring 50 images of 1024×1024 pixels with 500 touching objects each: ubend, scikit-image and StarDist side by side.

    python benchmarks/scores.py                   rivals into a temporary folder, table into docs/benchmarks.md
    python benchmarks/scores.py --rivals FOLDER   the same, and keeps the folder for the next time
    python benchmarks/scores.py --inside          measures what this Python can import, and only prints

Of StarDist only the matching is used, which needs no TensorFlow: so it is installed without most of its dependencies,
in a folder beside ubend's own environment. The tools take turns, image by image, on one thread; the time is the sum
over the images, the ratio the median over the rounds of the ratio of these sums.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import machine, markdown_table, write_section
from scipy.spatial import cKDTree

RIVALS = ["stardist==0.9.2", "csbdeep==0.8.2", "numba==0.68.1", "llvmlite==0.50.0", "tqdm==4.70.1", "six==1.17.0"]
IMAGES, SIDE, OBJECTS = 50, 1024, 500
THRESHOLDS = np.arange(10) / 20 + 0.5

Labels = NDArray[np.int32]
Score = Callable[[Labels, Labels], Any]


def ubend() -> dict[str, Score]:
    from ubend.scores import cells, em_challenge, overlap

    return {
        "shared pixels": overlap.overlaps,
        "Rand": em_challenge.rand_f_score,
        "information": em_challenge.information_f_score,
        "AP, F1, PQ, one IoU": cells.match,
        "AP, F1, PQ, ten IoUs": lambda truth, labels: cells.match_all(truth, labels, THRESHOLDS),
        "SEG": cells.seg,
        "DET": cells.detections,
        "AJI": cells.aggregated_jaccard,
        "AJI+": lambda truth, labels: cells.aggregated_jaccard(truth, labels, one_to_one=True),
    }


def skimage() -> dict[str, Score]:
    from skimage.metrics import adapted_rand_error, contingency_table, variation_of_information

    return {
        "shared pixels": contingency_table,
        "Rand": adapted_rand_error,
        "information": lambda truth, labels: variation_of_information(truth, labels, ignore_labels=[0]),
    }


def stardist() -> dict[str, Score]:
    from stardist.matching import matching

    return {
        "AP, F1, PQ, one IoU": matching,
        "AP, F1, PQ, ten IoUs": lambda truth, labels: matching(truth, labels, thresh=THRESHOLDS),
    }


TOOLS = {"ubend": ubend, "scikit-image": skimage, "stardist.matching": stardist}


def sample(number: int) -> tuple[Labels, Labels]:
    """Pixels of the nearest of 500 scattered centres, if near enough: cells that touch. The result is moved by 3, 2."""
    rng = np.random.default_rng(number)
    n = int(np.ceil(np.sqrt(OBJECTS)))
    pitch = SIDE / n
    places = (np.indices((n, n)).reshape(2, -1).T + 0.5 + rng.uniform(-0.35, 0.35, (n * n, 2))) * pitch
    centres = rng.permutation(places)[:OBJECTS]
    distance, nearest = cKDTree(centres).query(np.indices((SIDE, SIDE)).reshape(2, -1).T)
    inside = distance < (rng.uniform(0.45, 0.6, OBJECTS) * pitch)[nearest]
    truth = np.where(inside, nearest + 1, 0).reshape(SIDE, SIDE).astype(np.int32)
    return truth, np.roll(truth, (3, 2), axis=(0, 1))


def installed() -> dict[tuple[str, str], Score]:
    scores = {}
    for tool, make in TOOLS.items():
        try:
            made = make()
        except ImportError as error:
            print(f"{tool} is left out: {error}", file=sys.stderr)
            continue
        scores |= {(what, tool): score for what, score in made.items()}
    return scores


def check(scores: dict[tuple[str, str], Score]) -> None:
    """Look once at what the tools return, where they promise the same; what is compiled on first use then is."""
    truth, labels = sample(0)
    found = {key: score(truth, labels) for key, score in scores.items()}
    counts = {
        tool: [(one.tp, one.fp, one.fn) for one in result]
        for (what, tool), result in found.items()
        if what == "AP, F1, PQ, ten IoUs"
    }
    ours, theirs = found["shared pixels", "ubend"].pixels, found["shared pixels", "scikit-image"]
    if any(each != counts["ubend"] for each in counts.values()) or (ours.toarray() != theirs.toarray()).any():
        raise AssertionError("the tools do not agree; the comparison would not be fair")


def measure(rounds: int) -> str:
    """Let the tools take turns, and return the section of docs/benchmarks.md."""
    scores = installed()
    check(scores)
    seconds = {key: np.zeros(rounds) for key in scores}
    for number in range(IMAGES):
        truth, labels = sample(number)
        for turn in range(rounds):
            for key, score in scores.items():
                start = time.perf_counter()
                score(truth, labels)
                seconds[key][turn] += time.perf_counter() - start
    rows = []
    for what in dict.fromkeys(what for what, _ in scores):
        for tool in (tool for each, tool in scores if each == what):
            ratio = np.median(seconds[what, tool] / seconds[what, "ubend"])
            rows.append([what, tool, f"{np.median(seconds[what, tool]):.2f} s", f"{ratio:.1f}"])
    rivals = ", ".join(f"{name} {number}" for name in ("scikit-image", "stardist", "numba") if (number := has(name)))
    return (
        f"{IMAGES} pairs of {SIDE}×{SIDE} int32 label images with {OBJECTS} objects each, on one thread; {rounds} "
        "rounds in turns. The ratio is to ubend.\n\n"
        f"{markdown_table(['what', 'tool', 'time', 'ratio'], rows)}\n\n"
        "Tables of shared pixels and counts of objects were checked to be the same. For Rand and information the\n"
        "tools start from the same table, but report different numbers ([scores.md](scores.md) says which).\n\n"
        f"{machine()} Tools: {rivals}.\n\nCommand: `python benchmarks/scores.py`"
    )


def has(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def measure_beside(folder: Path, rounds: int) -> str:
    """Install the rivals into a folder of their own, as far as they install, and measure with it on the path."""
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--upgrade",
    ]
    for rival in RIVALS:
        subprocess.run([*install, "--target", folder, rival], check=False)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, __file__, "--inside", "--rounds", str(rounds)]
    return subprocess.run(command, check=True, env=environ, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", type=Path, help="folder of the rivals, made if it is missing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", action="store_true", help="measure with this Python, and only print")
    chosen = parser.parse_args()
    if chosen.inside:
        print(measure(chosen.rounds))
        return
    with tempfile.TemporaryDirectory() as temporary:
        text = measure_beside(chosen.rivals or Path(temporary), chosen.rounds)
    print(text)
    write_section("scores", text)


if __name__ == "__main__":
    main()
