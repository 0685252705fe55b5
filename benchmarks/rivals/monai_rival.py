"""MONAI's BasicUNet with the transforms, loss and optimiser of MONAI's 2D segmentation tutorial, but for the time.

ScaleIntensity, RandCropByPosNegLabel with 4 crops of 96×96 from each of 2 images a step, RandRotate90 with probability
0.5, DiceLoss of the sigmoid, Adam at 1e-3 throughout; prediction by sliding_window_inference in windows of 96×96 that
overlap by half (the tutorial leaves the overlap at a quarter). All images are trained on and the last weights kept: the
tutorial validates on as many images as it trains on, which are not there.

    python monai_rival.py --train DIR --images DIR --out DIR --minutes M --seed S --task binary
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from common import Clock, Job, read_gray, read_job, read_pairs, write_foreground, write_report
from monai.data import DataLoader, Dataset, list_data_collate
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.networks.nets import BasicUNet
from monai.transforms import Compose, EnsureChannelFirstd, RandCropByPosNegLabeld, RandRotate90d, ScaleIntensityd
from monai.utils import set_determinism

WINDOW = (96, 96)
KEYS = ("image", "mask")


def loader_of(job: Job) -> DataLoader:
    images, masks = read_pairs(job)
    pairs = [{"image": image, "mask": (mask > 0).astype(np.float32)} for image, mask in zip(images, masks, strict=True)]
    transforms = Compose(
        [
            EnsureChannelFirstd(KEYS, channel_dim="no_channel"),
            ScaleIntensityd(KEYS),
            RandCropByPosNegLabeld(KEYS, label_key="mask", spatial_size=WINDOW, pos=1, neg=1, num_samples=4),
            RandRotate90d(KEYS, prob=0.5, spatial_axes=(0, 1)),
        ]
    )
    return DataLoader(Dataset(pairs, transforms), batch_size=2, shuffle=True, collate_fn=list_data_collate)


def endless(loader: DataLoader) -> Iterator[dict[str, Any]]:
    while True:
        yield from loader


def train(job: Job) -> BasicUNet:
    batches = endless(loader_of(job))
    net = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1)
    energy = DiceLoss(sigmoid=True)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    clock, steps = Clock(job.minutes), 0
    clock.start()
    while clock.share() < 1:
        batch = next(batches)
        optimiser.zero_grad()
        energy(net(batch["image"].as_tensor()), batch["mask"].as_tensor()).backward()
        optimiser.step()
        steps += 1
    clock.stop()
    write_report(job, clock, steps, ["monai", "torch", "numpy"])
    return net.eval()


def main() -> None:
    job = read_job(__doc__)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    set_determinism(job.seed)
    net = train(job)
    scale = Compose([EnsureChannelFirstd("image", channel_dim="no_channel"), ScaleIntensityd("image")])
    with torch.inference_mode():
        for path in sorted(job.images.iterdir()):
            image = scale({"image": read_gray(path).astype(np.float32)})["image"].as_tensor()[None]
            scores = sliding_window_inference(image, WINDOW, 4, net, overlap=0.5)
            write_foreground(job, path.stem, torch.sigmoid(scores)[0, 0].numpy())


if __name__ == "__main__":
    main()
