"""MONAI's sliding_window_inference on a padded network: overlap 0.5, Gaussian blending, as nnU-Net predicts.

It runs in a Python that has monai, for benchmarks/tiling.py: reads network, weights and image from a folder, leaves
scores.npy there, and says the seconds of the inference alone.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from safetensors.torch import load_file

from ubend.method.network import NetworkConfig, UNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tile", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    net = UNet(NetworkConfig(**json.loads((chosen.folder / "network.json").read_text())))
    net.load_state_dict(load_file(chosen.folder / "net.safetensors"))
    net = net.eval().to(memory_format=torch.channels_last)
    image = torch.from_numpy(np.load(chosen.folder / "image.npy"))[None]
    with torch.inference_mode():
        tile = (chosen.tile, chosen.tile)
        sliding_window_inference(image[..., : chosen.tile, : chosen.tile], tile, 1, net)  # warm
        began = time.perf_counter()
        scores = sliding_window_inference(image, tile, 1, net, overlap=0.5, mode="gaussian")
        seconds = time.perf_counter() - began
    np.save(chosen.folder / "scores.npy", scores[0].numpy())
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
