"""Seconds for the scores of the EM challenge, on slices of its size: 512×512, 30 of them.

    python benchmarks/em_scores.py              into docs/benchmarks.md
    python benchmarks/em_scores.py --slices 3   quicker, a table on the screen

The truth is that of isbi2012_em, used again from the start when its slices run out; a proposal is the truth with noise,
smoothed to a probability.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import machine, markdown_table, write_section
from scipy import ndimage

from ubend.data.formats import image_files, read_labels
from ubend.scores import em_challenge, warping

MASKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "isbi2012_em" / "masks"
SLICES = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=SLICES)
    slices = parser.parse_args().slices
    if not MASKS.is_dir():
        sys.exit(f"the challenge's masks are not here: {MASKS}")
    files = image_files(MASKS)
    masks = [read_labels(files[k % len(files)])[0].pixels > 0 for k in range(slices)]
    rng = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(mask + rng.normal(0, 0.6, mask.shape), 1.5) for mask in masks]
    truth, proposal = np.stack(masks), np.stack(smooth).clip(0, 1).astype(np.float32)
    works: dict[str, tuple[str, Callable[[], Any]]] = {
        f"warping error, one slice, threshold {level:.1f}": (
            "5 s",
            lambda level=level: warping.count_mismatches(truth[0], proposal[0], level),
        )
        for level in em_challenge.ERROR_THRESHOLDS[1::4]
    }
    works |= {
        f"V_Rand and V_Info, {slices} slices, 11 thresholds": (
            "30 s",
            lambda: em_challenge.v_scores(truth, proposal),
        ),
        f"pixel error, {slices} slices, 10 thresholds": ("", lambda: em_challenge.pixel_error(truth, proposal)),
        f"Rand error, {slices} slices, 10 thresholds": ("", lambda: em_challenge.rand_error(truth, proposal)),
        f"warping error, {slices} slices, 10 thresholds": ("", lambda: em_challenge.warping_error(truth, proposal)),
    }
    rows = []
    for about, (goal, work) in works.items():
        start, worked = time.perf_counter(), time.process_time()
        work()
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        rows.append([about, f"{seconds:.2f} s", f"{worked:.2f} s", goal])
    table = markdown_table(["score", "time", "of it on the processor", "goal"], rows)
    print(table)
    if slices == SLICES:
        write_section("em_scores", f"{table}\n\n{machine()}\n\nCommand: `python benchmarks/em_scores.py`")


if __name__ == "__main__":
    main()
