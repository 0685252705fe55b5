"""nnU-Net's network, augmentation, loss and schedule, cut to the budget.

PlainConvUNet as the 2D planner lays it out for its patch: stages until an edge is 4 pixels, features from 32 doubling
to 512, instance norm, leaky ReLU, deep supervision. nnUNetTrainer's own get_training_transforms; of a batch a third
(of two patches: one) around foreground; Dice and cross entropy; SGD at 0.01 with Nesterov momentum 0.99 and weight
decay 3e-5, gradients clipped to 12, the rate falling by its polynomial, over the minutes in place of 250,000 steps.
z-scores of whole images. Prediction: its windows, half overlapping, with Gaussian weights, mirrored along both axes.
float32, as nnU-Net computes on a CPU. All images are trained on: its five folds need five, and the held-out one neither
stops training nor chooses anything.

Also cut: patches of 256×256, two a step, for the minutes to hold enough steps to learn from (its own plan for images of
512×512 is the whole image, some four times the time a step).

    python nnunet_rival.py --train DIR --images DIR --out DIR --minutes M --seed S --task binary
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from common import Clock, Job, read_gray, read_job, read_pairs, write_foreground, write_report
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray

PATCH, BATCH = (256, 256), 2
STAGES = 7  # an edge of 256 is halved six times, down to 4
FEATURES = [min(512, 32 * 2**stage) for stage in range(STAGES)]
RATE, OVERSAMPLED, CLIP = 0.01, 0.33, 12.0
MIRRORINGS: Sequence[tuple[int, ...]] = ((), (2,), (3,), (2, 3))


def network() -> PlainConvUNet:
    net = PlainConvUNet(
        1, STAGES, FEATURES, torch.nn.Conv2d, 3, [1] + [2] * (STAGES - 1), 2, 2, 2,
        conv_bias=True, norm_op=torch.nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip
    return net.apply(InitWeights_He(1e-2))


def loss_of(outputs: int) -> DeepSupervisionWrapper:
    """Weigh the outputs by half of the one before, the smallest not at all."""
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([0.5**k for k in range(outputs)])
    weights[-1] = 0
    return DeepSupervisionWrapper(loss, weights / weights.sum())


def z_score(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((image - image.mean()) / max(float(image.std()), 1e-8), np.float32)


def sampler(job: Job, scales: Sequence[Sequence[float]]) -> Callable[[], tuple[torch.Tensor, list[torch.Tensor]]]:
    """Return what draws a batch: patches anywhere, the last third of them around a pixel of the foreground."""
    images, masks = read_pairs(job)
    images = [z_score(image) for image in images]
    inside = [np.argwhere(mask > 0) for mask in masks]
    turn = (-np.pi, np.pi)
    transforms = nnUNetTrainer.get_training_transforms(PATCH, turn, scales, (0, 1), False)
    initial = get_patch_size(PATCH, turn, turn, turn, (0.85, 1.25))
    rng = np.random.default_rng(job.seed)

    def patch(aimed: bool) -> dict[str, Any]:
        k = int(rng.integers(len(images)))
        shape = np.array(images[k].shape)
        spare = initial - np.array(PATCH)
        padding = np.maximum(spare, initial - shape)
        lowest, highest = -(padding // 2), shape + padding // 2 + padding % 2 - initial
        start = rng.integers(lowest, highest + 1)
        if aimed and len(inside[k]):
            centre = inside[k][int(rng.integers(len(inside[k])))]
            start = np.clip(centre - initial // 2, lowest, highest)
        return transforms(
            image=torch.from_numpy(cut(images[k], start, initial, 0))[None],
            segmentation=torch.from_numpy(cut((masks[k] > 0).astype(np.int16), start, initial, -1))[None],
        )

    def batch() -> tuple[torch.Tensor, list[torch.Tensor]]:
        patches = [patch(k >= round(BATCH * (1 - OVERSAMPLED))) for k in range(BATCH)]
        targets = zip(*(one["segmentation"] for one in patches), strict=True)
        return torch.stack([one["image"] for one in patches]), [torch.stack(target) for target in targets]

    return batch


def cut(pixels: NDArray[Any], start: NDArray[Any], size: NDArray[Any], fill: float) -> NDArray[Any]:
    """Cut out a patch that may reach beyond the image, where it is filled up."""
    result = np.full(size, fill, pixels.dtype)
    end = start + size
    low, high = np.maximum(start, 0), np.minimum(end, pixels.shape)
    inner = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    result[inner] = pixels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return result


def train(job: Job) -> PlainConvUNet:
    net = network()
    scales = [[0.5**k, 0.5**k] for k in range(STAGES - 1)]
    loss, draw = loss_of(len(scales)), sampler(job, scales)
    optimiser = torch.optim.SGD(net.parameters(), RATE, momentum=0.99, nesterov=True, weight_decay=3e-5)
    clock, steps = Clock(job.minutes), 0
    clock.start()
    while (share := clock.share()) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - share) ** 0.9
        images, targets = draw()
        optimiser.zero_grad(set_to_none=True)
        loss(net(images), targets).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimiser.step()
        steps += 1
    clock.stop()
    write_report(job, clock, steps, ["nnunetv2", "torch", "numpy"])
    net.decoder.deep_supervision = False
    return net.eval()


def foreground(net: PlainConvUNet, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predict the probability of the foreground by mirrored, Gaussian-weighted windows."""
    shape = image.shape
    missing = [max(0, size - edge) for size, edge in zip(PATCH, shape, strict=True)]
    padded = np.pad(image, [(gap // 2, gap - gap // 2) for gap in missing])
    pixels = torch.from_numpy(padded)[None, None]
    weight = compute_gaussian(PATCH, dtype=torch.float32, device=torch.device("cpu"))
    total, weights = torch.zeros(2, *padded.shape), torch.zeros(padded.shape)
    rows, columns = compute_steps_for_sliding_window(padded.shape, PATCH, 0.5)
    for row in rows:
        for column in columns:
            place = (slice(row, row + PATCH[0]), slice(column, column + PATCH[1]))
            window = pixels[..., *place]
            views = [torch.flip(net(torch.flip(window, axes)), axes) for axes in MIRRORINGS]
            total[:, *place] += torch.stack(views).mean(0)[0] * weight
            weights[place] += weight
    top, left = (gap // 2 for gap in missing)
    probability = torch.softmax(total / weights, 0)[1, top : top + shape[0], left : left + shape[1]]
    return probability.numpy()


def main() -> None:
    job = read_job(__doc__)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002
    net = train(job)
    with torch.inference_mode():
        for path in sorted(job.images.iterdir()):
            image = z_score(read_gray(path).astype(np.float32))
            write_foreground(job, path.stem, foreground(net, image))


if __name__ == "__main__":
    main()
