"""How much memory a prediction takes, and how well ubend.run.memory tells it before.

    python benchmarks/memory.py                  table into docs/benchmarks.md
    python benchmarks/memory.py --threads 2      with more threads than one
    python benchmarks/memory.py --one 16 4 572   one prediction in this process, for a look

Each prediction runs in a process of its own, which has predicted nothing before. It is given the memory that one tile
is said to need (`ubend predict --memory`), and chooses its tile. Measured is the peak of the resident memory above what
the process held before; Linux resets it through /proc/self/clear_refs. Predicted is that of a tile and of the
probabilities of the whole image, here two tiles wide.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from report import machine, markdown_table, write_section

ROOT = Path(__file__).resolve().parents[1]
CASES = (
    *((width, 4, 572, 2, 1, "one") for width in (8, 16, 32, 64)),
    *((width, 3, 572, 2, 1, "one") for width in (8, 32)),
    *((16, 4, size, 2, 1, "one") for size in (204, 380, 1020, 1532)),
    (16, 3, 188, 2, 1, "one"),
    (64, 4, 204, 2, 1, "one"),
    (8, 4, 1532, 2, 1, "one"),
    (32, 4, 1020, 2, 1, "one"),
    (16, 4, 572, 2, 3, "dihedral"),
    (8, 4, 572, 20, 1, "one"),
    (8, 4, 572, 20, 1, "dihedral"),
    (16, 4, 572, 4, 16, "one"),
)
"""Width, depth, tile, classes, channels, views."""


def bytes_of(what: str) -> int:
    """Resident memory of this process: VmRSS now, VmHWM at the peak."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def one(width: int, depth: int, size: int, classes: int = 2, channels: int = 1, views: str = "one") -> dict[str, int]:
    """Predict two tiles within the memory of one; return what was predicted and what was measured, in bytes."""
    import numpy as np

    from ubend.data.annotated import Task
    from ubend.method.geometry import output_size, tile_step
    from ubend.method.network import NetworkConfig, UNet
    from ubend.run.contract import Contract
    from ubend.run.device import resident_memory
    from ubend.run.memory import label_bytes, result_bytes, tile_bytes
    from ubend.run.model import Model
    from ubend.run.normalisation import Normalisation

    network = NetworkConfig(
        in_channels=channels, classes=classes, width=width, depth=depth, padding="same", normalisation="batch"
    )
    task = Task("classes", tuple(range(classes)), None)
    contract = Contract(
        network=network,
        task=task,
        normalisation=Normalisation("percentile", True),
        views=views,  # type: ignore[arg-type]
    )
    model = Model(UNet(network), contract, device="cpu")
    output = output_size(size, depth)
    shape = output, 2 * tile_step(output, depth)
    image = np.random.default_rng(0).integers(0, 255, (*shape, channels), dtype=np.uint8)
    expected = tile_bytes(network, size, views=8 if views == "dihedral" else 1)
    predicted = max(expected, label_bytes(shape, instances=False)) + result_bytes(network, shape)
    tiles: list[int] = []
    before = resident_memory()
    Path("/proc/self/clear_refs").write_text("5")
    model.predict(image, memory=before + predicted + 2**16, exact=True, on_tile=lambda _done, of: tiles.append(of))
    return {"predicted": predicted, "measured": bytes_of("VmHWM") - before, "tiles": tiles[-1]}


def measured(case: tuple[object, ...], threads: int) -> dict[str, int]:
    """Run `one` in a process of its own."""
    environ = {
        **os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"
    }  # fmt: skip
    command = [sys.executable, __file__, "--one", *map(str, case)]
    return json.loads(subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE).stdout)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        *numbers, views = chosen.one if not chosen.one[-1].isdecimal() else [*chosen.one, "one"]
        print(json.dumps(one(*map(int, numbers), views=views)))
        return
    rows = []
    for case in CASES:
        found = measured(case, chosen.threads)
        share = found["measured"] / found["predicted"]
        row = [
            *map(str, case),
            f"{found['predicted'] / 1e6:.0f} MB",
            f"{found['measured'] / 1e6:.0f} MB",
            f"{share:.0%}",
        ]
        rows.append(row)
        print(" ".join(row), flush=True)
    header = ["width", "depth", "tile", "classes", "channels", "views", "predicted", "measured", "measured/predicted"]
    threads = f"{chosen.threads} thread" + ("s" if chosen.threads > 1 else "")
    end = f"{machine()}\n\nCommand: `python benchmarks/memory.py`"
    text = f"Float32, {threads}.\n\n{markdown_table(header, rows)}\n\n{end}"
    write_section("memory", text)


if __name__ == "__main__":
    main()
