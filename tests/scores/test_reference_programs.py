"""Our scores against the programs that others quote, on the same images.

The numbers at the top were written down from those programs (stardist 0.9.2, py-ctcmetrics 1.3.3, surface-distance 0.1,
and get_fast_aji and get_fast_aji_plus of HoVer-Net) and are always compared. Where the programs are installed, many
more images are; they are no part of the development environment, as they bring large or old packages with them:

    pip install --no-deps stardist csbdeep py-ctcmetrics surface-distance
    pip install numba tqdm scikit-learn pandas imagecodecs absl-py
"""

import importlib

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from ubend.scores.cells import (
    Detections,
    aggregated_jaccard,
    detections,
    match_all,
    pooled,
    pooled_detections,
    seg,
)
from ubend.scores.surface import surface_distances

THRESHOLDS = (0.3, 0.5, 0.6, 0.65, 0.7, 0.71, 0.72, 0.9)
# threshold: TP, FP, FN, F1, PQ of stardist.matching
STARDIST = {
    0.3: (36, 3, 4, 0.9113924050632911, 0.6245355243924298),
    0.5: (34, 5, 6, 0.8607594936708861, 0.6050089582612243),
    0.6: (33, 6, 7, 0.8354430379746836, 0.590422666525539),
    0.65: (31, 8, 9, 0.7848101265822784, 0.5591354852990259),
    0.7: (25, 14, 15, 0.6329113924050633, 0.45556360558618475),
    0.71: (19, 20, 21, 0.4810126582278481, 0.34878846663462965),
    0.72: (18, 21, 22, 0.45569620253164556, 0.3307748384113553),
    0.9: (0, 39, 40, 0, 0.0),
}
# of py-ctcmetrics
SEG, NS, FN, FP, DET = 0.6164992363936236, 1, 4, 4, 0.8775
# of HoVer-Net
AJI, AJI_PLUS = 0.6060638641006343, 0.6138357705286839
# of surface-distance, foreground against foreground, spacing (1.5, 0.5): both averages, HD95, HD100, surface Dice at 1
SURFACE = (1.062286754993717, 1.4322949957004227, 4.5, 9.962429422585638, 0.5991546409536498)


def program(name):
    """Import a module of another program, or skip the test and say why."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not installed ({error}); its numbers at the top of this file are compared all the same")


def sample(seed=0, n=40, shape=(96, 128)):
    """Discs that touch, and a result that is moved, merges, splits, misses and invents some. Whole numbers only."""
    rows, columns = np.indices(shape)
    number = np.arange(1, n + 1)
    centres = (37 * number + 11 * seed) % shape[0], (53 * number + 29 * seed) % shape[1]
    squared = [(rows - row) ** 2 + (columns - column) ** 2 for row, column in zip(*centres, strict=True)]
    truth = np.where(np.min(squared, axis=0) < 81, np.argmin(squared, axis=0) + 1, 0)
    labels = np.roll(truth, (2, 1 + seed % 3), axis=(0, 1))
    labels[labels == 4] = 3
    labels[np.isin(labels, (7, 8))] = 0
    labels[(labels == 10) & (columns % 4 < 2)] = n + 1
    labels[(truth == 0) & (rows % 24 < 3) & (columns % 32 < 3)] = n + 2
    labels[(labels == 12) & (rows % 3 > 0)] = 0
    return truth, labels


def random_pair(rng):
    """Blobs of many sizes, and a result of which some are moved, renamed or merged."""
    field = ndimage.gaussian_filter(rng.random(rng.integers(20, 60, 2)), rng.uniform(0.7, 2))
    truth = ndimage.label(field > np.quantile(field, rng.uniform(0.4, 0.8)))[0]
    return truth, perturbed(truth, rng)


def perturbed(truth, rng):
    labels = np.roll(truth, rng.integers(-2, 3, 2), axis=(0, 1))
    names = rng.permutation(np.arange(1, 3 * truth.max() + 3))[: truth.max() + 1]
    same = rng.random(len(names)) < 0.15
    names[same] = names[0]
    names[rng.random(len(names)) < 0.1] = 0
    names[0] = 0
    labels = names[labels]
    extra = ndimage.label(ndimage.gaussian_filter(rng.random(truth.shape), 1) > 0.62)[0]
    return np.where((labels == 0) & (extra > 0), extra + labels.max(), labels)


def compare_with_stardist(truth, labels, thresholds=THRESHOLDS):
    theirs = program("stardist.matching").matching(truth, labels, thresh=thresholds)
    for one, other in zip(match_all(truth, labels, thresholds), theirs, strict=True):
        assert (one.tp, one.fp, one.fn) == (other.tp, other.fp, other.fn)
        assert (one.n_truth, one.n_predicted) == (other.n_true, other.n_pred)
        if one.tp + one.fp + one.fn:
            assert one.f1 == pytest.approx(other.f1, rel=1e-14)
            assert one.average_precision == pytest.approx(other.accuracy, rel=1e-14)
            if one.iou_threshold >= 0.5:
                assert one.panoptic_quality == pytest.approx(other.panoptic_quality, rel=1e-6)  # theirs is of float32


def of_ctc(folder, pairs):
    """SEG, DET and the counts of py-ctcmetrics for the frames of a video, read from files as it does."""
    representations = program("ctc_metrics.utils.representations")
    matches = []
    for number, pair in enumerate(pairs):
        paths = [folder / f"{name}{number}.tif" for name in ("truth", "labels")]
        for path, array in zip(paths, pair, strict=True):
            tifffile.imwrite(path, array.astype(np.uint16))
        matches.append(representations.match(*map(str, paths)))
    labels_ref, labels_comp, mapped_ref, mapped_comp, ious = map(list, zip(*matches, strict=True))
    counts = representations.count_acyclic_graph_correction_operations(
        None, None, labels_ref, labels_comp, mapped_ref, mapped_comp
    )
    det = program("ctc_metrics.metrics.technical.det").det(**counts)
    return program("ctc_metrics.metrics.technical.seg").seg(labels_ref, ious), det, counts


def compare_with_ctc(folder, pairs):
    their_seg, their_det, counts = of_ctc(folder, pairs)
    found = pooled_detections(detections(*pair) for pair in pairs)
    assert found == Detections(counts["NS"], counts["FN"], counts["FP"], counts["num_vertices"])
    assert found.det == pytest.approx(their_det, rel=1e-14)
    assert np.concatenate([seg(*pair) for pair in pairs]).mean() == pytest.approx(their_seg, rel=1e-13)


def of_surface_distance(truth, labels, spacing, tolerance):
    metrics = program("surface_distance.metrics")
    found = metrics.compute_surface_distances(truth, labels, list(spacing))
    return (
        *metrics.compute_average_surface_distance(found),
        metrics.compute_robust_hausdorff(found, 95),
        metrics.compute_robust_hausdorff(found, 100),
        metrics.compute_surface_dice_at_tolerance(found, tolerance),
    )


def ours(truth, labels, spacing, tolerance):
    found = surface_distances(truth, labels, spacing)
    return (*found.average, found.hausdorff_95, found.hausdorff, found.dice(tolerance))


# numbers written down


@pytest.mark.parametrize("threshold", STARDIST)
def test_sample_as_stardist_has_it(threshold):
    (found,) = match_all(*sample(), [threshold])
    tp, fp, fn, f1, pq = STARDIST[threshold]
    assert (found.tp, found.fp, found.fn) == (tp, fp, fn)
    assert found.f1 == pytest.approx(f1, rel=1e-14)
    assert found.panoptic_quality == pytest.approx(pq, rel=1e-6)  # theirs is of float32


def test_sample_as_the_tracking_challenge_has_it():
    assert seg(*sample()).mean() == pytest.approx(SEG, rel=1e-14)
    assert detections(*sample()) == Detections(NS, FN, FP, 40)
    assert detections(*sample()).det == pytest.approx(DET, rel=1e-14)


def test_sample_as_hover_net_has_it():
    assert aggregated_jaccard(*sample()).value == pytest.approx(AJI, rel=1e-14)
    assert aggregated_jaccard(*sample(), one_to_one=True).value == pytest.approx(AJI_PLUS, rel=1e-14)


def test_sample_as_surface_distance_has_it():
    truth, labels = sample()
    assert ours(truth > 0, labels > 0, (1.5, 0.5), 1) == pytest.approx(SURFACE, rel=1e-13)


# the programs themselves


def test_stardist():
    for seed in range(60):
        compare_with_stardist(*random_pair(np.random.default_rng(seed)))


def test_stardist_pooled_over_images():
    pairs = [random_pair(np.random.default_rng(seed)) for seed in range(10)]
    truths, results = zip(*pairs, strict=True)
    theirs = program("stardist.matching").matching_dataset(truths, results, thresh=0.5, show_progress=False)
    found = pooled(match_all(*pair, [0.5])[0] for pair in pairs)
    assert (found.tp, found.fp, found.fn) == (theirs.tp, theirs.fp, theirs.fn)
    assert found.average_precision == pytest.approx(theirs.accuracy, rel=1e-14)
    assert found.panoptic_quality == pytest.approx(theirs.panoptic_quality, rel=1e-6)


def test_cell_tracking_challenge(tmp_path):
    for seed in range(60):
        compare_with_ctc(tmp_path, [random_pair(np.random.default_rng(seed))])


def test_cell_tracking_challenge_pooled_over_frames(tmp_path):
    compare_with_ctc(tmp_path, [random_pair(np.random.default_rng(seed)) for seed in range(10)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_surface_distance():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        axes = 2 + seed % 2
        shape, spacing = rng.integers(4, 14, axes), rng.uniform(0.3, 3, axes)
        masks = [ndimage.gaussian_filter(rng.random(shape), rng.uniform(0, 1.2)) > 0.5 for _ in range(2)]
        masks[0].flat[0] = masks[1].flat[-1] = True
        assert ours(*masks, spacing, 1.0) == pytest.approx(of_surface_distance(*masks, spacing, 1.0), rel=1e-12)
