"""How good with 1, 2, 5, 10 and 20 annotated images, in the same few minutes: ubend and its rivals.

    python benchmarks/few_images.py --cores 0 1             two runs side by side, one core each, for at most 50 minutes
    python benchmarks/few_images.py isbi2012_em --n 5 --tools ubend --cores 0,1 --minutes 10 --seeds 0 1 2
    python benchmarks/few_images.py --report                table and plot in docs/, from what has been measured
    python benchmarks/few_images.py --check                 no image is trained on and scored

A run trains on n images, predicts others and scores them by `ubend evaluate`; it adds a row to
benchmarks/results/few_images.csv, and is not repeated while its row is there. So the same command goes on where it was
stopped, and several of them may work at once.

The rivals are optional, each in a Python of its own, so that what they need never meets ours:

    python -m venv stardist && stardist/bin/pip install tensorflow stardist
    python -m venv monai && monai/bin/pip install torch==2.13.0 monai tifffile scipy
    python -m venv nnunet && nnunet/bin/pip install torch==2.13.0 "nnunetv2>=2.8,<2.9" tifffile
    python benchmarks/few_images.py --python-stardist stardist/bin/python --python-monai … --python-nnunet …

or, instead of these options, UBEND_PYTHON_STARDIST, UBEND_PYTHON_MONAI and UBEND_PYTHON_NNUNET. One that is missing is
left out, and said so. What each of them does is said in benchmarks/rivals/.

The clock: minutes of training. Of the rivals it starts after imports, reading and compiling, and ends with the last
step; of ubend it also holds the preparation of the images, validation and the choice of the rules for objects. No clock
holds prediction. All tools use the CPU alone.
"""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median

import numpy as np
from real_data import DATA, fluorescence_files
from report import PAGE, keep, kept, markdown_table, processor, write_section

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "few_images.csv"
PLOT = PAGE.with_name("few_images.png")

N = (1, 2, 5, 10, 20)
SEEDS = (0, 1, 2)
TOOLS = ("ubend", "ubend_paper", "stardist", "monai", "nnunet")
RIVALS = {"stardist": "stardist", "monai": "monai", "nnunet": "nnunetv2"}
OURS = ("ubend", "ubend_paper")
NAMES = {
    "ubend": "ubend",
    "ubend_paper": "ubend, recipe `paper`",
    "stardist": "StarDist",
    "monai": "MONAI BasicUNet",
    "nnunet": "nnU-Net, cut",
}
SCORES = (
    *("IoU", "Dice", "precision", "recall", "V_Rand", "V_Info", "AP@0.5 (pooled)", "AP@0.75 (pooled)"),
    *("AP@0.5:0.95 (pooled)", "AP@0.5 (mean of images)", "F1@0.5 (pooled)", "PQ@0.5 (pooled)", "SEG", "DET"),
    *("AJI (mean of images)", "AJI+ (mean of images)", "pairs apart"),
)
COLUMNS = (
    *("set", "tool", "n", "seed", "minutes_asked", "minutes_taken", "command_minutes", "cores", "steps"),
    "prediction_seconds",
    *SCORES,
    *("versions", "date", "machine"),
)
GUESSED_PREDICTION = 60.0


# The folds


@dataclass(frozen=True)
class Fold:
    """Which images of a set are trained on and which are scored, for good.

    Attributes
    ----------
    task : {"binary", "instances"}
    scores : tuple of str
        By which tools are compared, the first of them first.
    names : callable
        Lists the images; all numbers count in this list.
    scored : sequence of int
        Never trained on.
    pool : sequence of int
        To train on.
    nested : callable
        Of a pool and a seed all images in an order, of which a run takes the first n.
    about : str
    published : float, optional
        A figure to draw beside the first score.
    neighbours : sequence of int
        Of the pool, those beside scored images: trained on only where all are.
    """

    task: str
    scores: tuple[str, ...]
    names: Callable[[], list[str]]
    scored: Sequence[int]
    pool: Sequence[int]
    nested: Callable[[Sequence[int], int], list[int]]
    about: str
    published: float | None = None
    neighbours: Sequence[int] = ()

    def training(self, seed: int) -> list[int]:
        """All images of the pool, in the order in which more of them are taken."""
        return [*self.nested([k for k in self.pool if k not in self.neighbours], seed), *self.neighbours]

    def sizes(self, wanted: Sequence[int]) -> list[int]:
        """The numbers of images that there are, each once."""
        return sorted({min(n, len(self.pool)) for n in wanted})


def spread(pool: Sequence[int], seed: int) -> list[int]:
    """Order the slices of a stack so that the first n, whatever n, lie far apart; the seed says with which to begin."""
    rng = np.random.default_rng(seed)
    rest = [int(k) for k in rng.permutation(pool)]
    chosen = [rest.pop(0)]
    while rest:
        chosen.append(max(rest, key=lambda k: min(abs(k - other) for other in chosen)))
        rest.remove(chosen[-1])
    return chosen


def shuffled(pool: Sequence[int], seed: int) -> list[int]:
    return [int(k) for k in np.random.default_rng(seed).permutation(pool)]


def alternating(pool: Sequence[int], seed: int) -> list[int]:
    """Shuffle even and odd numbers, and take them in turns."""
    kinds = [shuffled([k for k in pool if k % 2 == parity], seed) for parity in (0, 1)]
    return [k for both in zip(*kinds, strict=True) for k in both]


def files_of(name: str) -> Callable[[], list[str]]:
    return lambda: sorted(path.name for path in (DATA / name / "images").iterdir())


def two_cell_lines() -> list[str]:
    """List the nuclei that touching.py has left, the two cell lines in turns: gnf at even numbers, ic100 at odd."""
    names = files_of("coelho2009_nuclei")()
    rest = [names[k] for k in np.random.default_rng(11).permutation(len(names))][22:]
    lines = [[name for name in rest if name.startswith(line)] for line in ("gnf", "ic100")]
    return [name for both in zip(*lines, strict=False) for name in both]


_OF_OBJECTS = ("AP@0.5 (pooled)", "AP@0.75 (pooled)", "AP@0.5 (mean of images)")
FOLDS = {
    "isbi2012_em": Fold(
        "binary", ("V_Rand", "V_Info"), files_of("isbi2012_em"), range(18, 24), range(18), spread,
        "slices 0–15, spread evenly, and 16 and 17 only for n = 18, which is all there are; scored on 18–23",
        0.9728, (16, 17),
    ),
    "vnc_sstem": Fold(
        "binary", ("V_Rand", "V_Info"), files_of("vnc_sstem"), range(9, 16, 2), range(8), spread,
        "slices 0–7, spread evenly, so 8 at most; scored on 9, 11, 13, 15",
    ),
    "dsb2018": Fold(
        "instances", _OF_OBJECTS, fluorescence_files, range(360, 410), range(60), shuffled,
        "fluorescence; 60 images to draw from, 50 others scored",
    ),
    "coelho2009_nuclei": Fold(
        "instances", _OF_OBJECTS, two_cell_lines, range(40, 50), range(40), alternating,
        "both cell lines in turns; 40 images to draw from, 10 others scored",
    ),
    "dic_hela": Fold(
        "binary", ("IoU",), files_of("dic_hela"), range(44, 64, 4), range(20), spread,
        "frames 0–19, spread evenly; scored on 44, 48, 52, 56, 60",
    ),
}  # fmt: skip


def faults(name: str) -> list[str]:
    """Say what is wrong with a fold; nothing should be."""
    fold, names = FOLDS[name], FOLDS[name].names()
    found = []
    if len(set(names)) != len(names):
        found.append(f"{name}: an image is listed twice")
    if max(*fold.scored, *fold.pool) >= len(names):
        found.append(f"{name}: only {len(names)} images are there")
    if shared := set(fold.scored) & set(fold.pool):
        found.append(f"{name}: trained on and scored: {sorted(shared)}")
    for seed in SEEDS:
        order = fold.training(seed)
        if sorted(order) != sorted(fold.pool):
            found.append(f"{name}, seed {seed}: the order does not hold each image of the pool once")
        if order != fold.training(seed):
            found.append(f"{name}, seed {seed}: the order is another each time")
    return found


# One run


@dataclass(frozen=True)
class Run:
    """One training, and its place in the file of results."""

    set: str
    tool: str
    n: int
    seed: int
    minutes: float
    cores: int

    @property
    def key(self) -> tuple[str, ...]:
        return (self.set, self.tool, str(self.n), str(self.seed), f"{self.minutes:g}", str(self.cores))

    def __str__(self) -> str:
        return f"{self.set}, {self.tool}, n = {self.n}, seed {self.seed}"


def key_of(row: dict[str, str]) -> tuple[str, ...]:
    minutes = f"{float(row['minutes_asked']):g}"
    return (row["set"], row["tool"], row["n"], row["seed"], minutes, row["cores"])


def copy_images(name: str, numbers: Sequence[int], folder: Path) -> None:
    names = FOLDS[name].names()
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
        for k in numbers:
            shutil.copy(DATA / name / part / names[k], folder / part)


def provide_scored(name: str, folder: Path) -> None:
    """Copy the images to score, unless they are there; another process may do so at the same time."""
    names = FOLDS[name].names()
    wanted = sorted(names[k] for k in FOLDS[name].scored)
    masks = folder / "masks"
    if masks.is_dir() and sorted(path.name for path in masks.iterdir()) == wanted:
        return
    apart = folder.with_name(f".{name}-{os.getpid()}")
    copy_images(name, FOLDS[name].scored, apart)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another process was faster
        apart.rename(folder)
    shutil.rmtree(apart, ignore_errors=True)


def call(command: Sequence[str], log: Path, cores: int) -> float:
    """Run a command with its output in a file; return its seconds."""
    threads = {f"{name}_NUM_THREADS": str(cores) for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2", "COLUMNS": "160"}
    began = time.perf_counter()
    with log.open("a", encoding="utf-8") as file:
        file.write("$ " + " ".join(command) + "\n")
        file.flush()
        done = subprocess.run(
            command, env={**os.environ, **threads, **quiet}, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}, see {log}")
    return time.perf_counter() - began


def ubend(*words: str) -> list[str]:
    return [sys.executable, "-m", "ubend", *words]


def run_ubend(run: Run, here: Path, test: Path) -> dict[str, str]:
    recipe = "paper" if run.tool == "ubend_paper" else "default"
    model, log, task = here / "model", here / "log.txt", FOLDS[run.set].task
    training = call(
        ubend("train", str(here / "train"), "--out", str(model), "--recipe", recipe, "--task", task,
              "--minutes", f"{run.minutes:g}", "--seed", str(run.seed)),
        log, run.cores,
    )  # fmt: skip
    images, results = str(test / "images"), str(here / "results")
    seconds = call(ubend("predict", str(model), images, "--out", results, "--probabilities"), log, run.cores)
    from ubend import load

    made = load(model).contract.provenance
    return {
        "minutes_taken": f"{made['minutes']:.2f}",
        "command_minutes": f"{training / 60:.2f}",
        "steps": str(made["steps"]),
        "prediction_seconds": f"{seconds:.0f}",
        "versions": _versions({**made["versions"], "ubend": ubend_version()}),
    }


def run_rival(run: Run, here: Path, test: Path, python: str) -> dict[str, str]:
    script = HERE / "rivals" / f"{run.tool}_rival.py"
    seconds = call(
        [python, str(script), "--train", str(here / "train"), "--images", str(test / "images"),
         "--out", str(here / "results"), "--minutes", f"{run.minutes:g}", "--seed", str(run.seed),
         "--task", FOLDS[run.set].task],
        here / "log.txt", run.cores,
    )  # fmt: skip
    made = json.loads((here / "results" / "training.json").read_text(encoding="utf-8"))
    return {
        "minutes_taken": f"{made['minutes']:.2f}",
        "steps": str(made["steps"]),
        "prediction_seconds": f"{seconds - 60 * made['minutes']:.0f}",
        "versions": _versions(made["versions"]),
    }


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def ubend_version() -> str:
    """Say which ubend this is: its version and, in a checkout, its commit."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return version("ubend") + (f"+{asked.stdout.strip()}" if asked.returncode == 0 else "")


def measure(run: Run, out: Path, pythons: dict[str, str]) -> dict[str, str]:
    """Train, predict and score."""
    fold, test = FOLDS[run.set], out / run.set
    here = out / "-".join(run.key)
    shutil.rmtree(here / "results", ignore_errors=True)
    shutil.rmtree(here / "model", ignore_errors=True)
    copy_images(run.set, fold.training(run.seed)[: run.n], here / "train")
    made = (
        run_rival(run, here, test, pythons[run.tool]) if run.tool in RIVALS else run_ubend(run, here, test)
    )  # fmt: skip
    words = ["evaluate", str(here / "results"), str(test), "--task", fold.task, "--overwrite"]
    call(ubend(*words, "--json", str(here / "scores.json")), here / "log.txt", run.cores)
    overall = json.loads((here / "scores.json").read_text(encoding="utf-8"))["overall"]
    scores = {name: "" if overall.get(name) is None else f"{overall[name]:.4f}" for name in SCORES}
    asked = {"set": run.set, "tool": run.tool, "n": str(run.n), "seed": str(run.seed), "cores": str(run.cores)}
    today = datetime.date.today().isoformat()
    return {**asked, "minutes_asked": f"{run.minutes:g}", **made, **scores, "date": today, "machine": processor()}


# All runs


def planned(chosen: argparse.Namespace, tools: Sequence[str], cores: int) -> list[Run]:
    """List the runs, those that say most first: ubend's curve, the rivals at 5 images, at others; then more seeds."""
    runs = [
        Run(name, tool, n, seed, chosen.minutes, cores)
        for seed in chosen.seeds
        for name in chosen.sets or FOLDS
        for tool in tools
        for n in FOLDS[name].sizes(chosen.n)
        if tool != "stardist" or FOLDS[name].task == "instances"
    ]
    rank = {5: 0, 1: 1}
    return sorted(runs, key=lambda run: (run.seed, run.tool != "ubend", rank.get(run.n, 2), run.tool == "ubend_paper"))


def expected_seconds(run: Run, known: Sequence[dict[str, str]]) -> float:
    """Training as asked for, and what prediction took in earlier runs of that tool on that set."""
    seen = [
        float(row["prediction_seconds"])
        for row in known
        if (row["set"], row["tool"], row["cores"]) == (run.set, run.tool, str(run.cores))
    ]
    return 60 * run.minutes + (median(seen) if seen else GUESSED_PREDICTION)


@contextlib.contextmanager
def claimed(run: Run, out: Path) -> Iterator[bool]:
    """Keep other processes from making the same run; a process that ends, however it does, gives it back."""
    here = out / "-".join(run.key)
    here.mkdir(parents=True, exist_ok=True)
    with (here / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class Work:
    """The runs that are left, for one thread a group of cores."""

    def __init__(self, chosen: argparse.Namespace, runs: Sequence[Run], pythons: dict[str, str]) -> None:
        self.chosen, self.runs, self.pythons = chosen, runs, pythons
        self.waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in runs:
            self.waiting.put(run)
        self.end = time.monotonic() + 60 * chosen.total
        self.failed: list[str] = []

    def left(self) -> str:
        known, waiting = kept(RESULTS), self.waiting.qsize()
        seconds = sum(expected_seconds(run, known) for run in self.runs[len(self.runs) - waiting :])
        until = max(0.0, self.end - time.monotonic())
        return f"{waiting} more wait, {seconds / 60 / len(self.chosen.cores):.0f} min of work; {until / 60:.0f} left"

    def work(self, cores: Sequence[int]) -> None:
        """Make one run after the other on these cores, which processes inherit from this thread."""
        os.sched_setaffinity(0, cores)
        while True:
            try:
                run = self.waiting.get_nowait()
            except queue.Empty:
                return
            known = kept(RESULTS)
            if time.monotonic() + expected_seconds(run, known) > self.end:
                print(f"{run}: not begun, it would not end in time", flush=True)
                continue
            with claimed(run, self.chosen.out) as mine:
                done = not self.chosen.again and run.key in {key_of(row) for row in kept(RESULTS)}
                if not mine or done:
                    continue
                print(f"{run}: begun ({self.left()})", flush=True)
                try:
                    row = measure(run, self.chosen.out, self.pythons)
                except (RuntimeError, OSError) as error:
                    print(f"{run}: FAILED, {error}", flush=True)
                    self.failed.append(str(run))
                    continue
                keep(RESULTS, COLUMNS, [row])
                said = ", ".join(f"{name} {row[name]}" for name in FOLDS[run.set].scores)
                print(f"{run}: {said} ({row['steps']} steps in {row['minutes_taken']} min)", flush=True)


def usable_tools(chosen: argparse.Namespace, pythons: dict[str, str]) -> list[str]:
    tools = []
    for tool in chosen.tools:
        if tool in RIVALS:
            look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{RIVALS[tool]}') is None)"
            if subprocess.run([pythons[tool], "-c", look], check=False).returncode:
                print(f"{tool} is left out: {pythons[tool]} has no {RIVALS[tool]}; --python-{tool} names another")
                continue
        tools.append(tool)
    return tools


def run_all(chosen: argparse.Namespace) -> None:
    pythons = {tool: getattr(chosen, f"python_{tool}") for tool in RIVALS}
    tools = usable_tools(chosen, pythons)
    groups = [[int(core) for core in group.split(",")] for group in chosen.cores]
    if len({len(group) for group in groups}) > 1:
        sys.exit("groups of cores must be of one size: what they measure stands in one table")
    chosen.out.mkdir(parents=True, exist_ok=True)
    runs, known = planned(chosen, tools, len(groups[0])), kept(RESULTS)
    done = set() if chosen.again else {key_of(row) for row in known}
    todo = [run for run in runs if run.key not in done]
    minutes = sum(expected_seconds(run, known) for run in todo) / 60 / len(groups)
    print(
        f"{len(runs)} runs, {len(runs) - len(todo)} of them done; the others take about {minutes:.0f} min on "
        f"{len(groups)} × {len(groups[0])} cores. None is begun that would not end within {chosen.total:g} min.",
        flush=True,
    )
    for name in {run.set for run in todo}:
        provide_scored(name, chosen.out / name)
    work = Work(chosen, todo, pythons)
    threads = [threading.Thread(target=work.work, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if work.failed:
        sys.exit(f"{len(work.failed)} runs failed: {'; '.join(work.failed)}")


# The report


@dataclass(frozen=True)
class Spread:
    """A score by seed."""

    by_seed: dict[str, float]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(self.by_seed.values())

    @property
    def mean(self) -> float:
        return mean(self.values)

    def ahead_of(self, other: "Spread") -> bool | None:
        """Whether the mean is no lower over the seeds that both have, so on the same images; None if there is none."""
        shared = self.by_seed.keys() & other.by_seed.keys()
        if not shared:
            return None
        return mean(self.by_seed[seed] for seed in shared) >= mean(other.by_seed[seed] for seed in shared)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({min(self.values):.3f}–{max(self.values):.3f})"


Table = dict[tuple[str, int, str, str], Spread]


def settings(rows: Sequence[dict[str, str]]) -> list[tuple[str, str]]:
    """List minutes and cores that were measured, the setting of most runs first."""
    count: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        count[f"{float(row['minutes_asked']):g}", row["cores"]] += 1
    return sorted(count, key=lambda setting: -count[setting])


def newest(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Keep the newest row of each run."""
    return list({key_of(row): row for row in rows if row["set"] in FOLDS}.values())


def table_of(rows: Sequence[dict[str, str]], setting: tuple[str, str]) -> Table:
    """Gather, by set, n, score and tool, the newest row of each seed."""
    found: dict[tuple[str, int, str, str], dict[str, float]] = defaultdict(dict)
    for row in newest(rows):
        if key_of(row)[-2:] != setting:
            continue
        for score in FOLDS[row["set"]].scores:
            if row[score]:
                found[row["set"], int(row["n"]), score, row["tool"]][row["seed"]] = float(row[score])
    return {place: Spread(values) for place, values in found.items()}


def rows_of(table: Table) -> list[tuple[str, int, str]]:
    places = {place[:3] for place in table}
    order = {name: k for k, name in enumerate(FOLDS)}
    return sorted(places, key=lambda place: (order[place[0]], FOLDS[place[0]].scores.index(place[2]), place[1]))


def markdown_of(table: Table) -> str:
    tools = [tool for tool in TOOLS if any(place[3] == tool for place in table)]
    lines = []
    for name, n, score in rows_of(table):
        spreads = {tool: table[name, n, score, tool] for tool in tools if (name, n, score, tool) in table}
        cells = {
            tool: f"**{spread}**" if len(spreads) > 1 and first(tool, spreads) else str(spread)
            for tool, spread in spreads.items()
        }
        lines.append([name, score, str(n), *(cells.get(tool, "") for tool in tools)])
    return markdown_table(["set", "score", "n", *(NAMES[tool] for tool in tools)], lines)


def first(tool: str, spreads: dict[str, Spread]) -> bool:
    """Whether a tool is ahead of every other."""
    return all(spreads[tool].ahead_of(spread) for other, spread in spreads.items() if other != tool)


def standing(table: Table) -> str:
    """Say in how many rows of few images ubend is first, and name the others."""
    behind, compared, groups = [], 0, set()
    for name, n, score in rows_of(table):
        spreads = {tool: table[name, n, score, tool] for tool in TOOLS if (name, n, score, tool) in table}
        if n > 10 or "ubend" not in spreads:
            continue
        ahead = {tool: spreads["ubend"].ahead_of(spread) for tool, spread in spreads.items() if tool not in OURS}
        ahead = {tool: is_ahead for tool, is_ahead in ahead.items() if is_ahead is not None}
        if not ahead:
            continue
        compared += 1
        groups.add((name, n))
        if not all(ahead.values()):
            better = [NAMES[tool] for tool, is_ahead in ahead.items() if not is_ahead]
            behind.append(f"{name} by {score} at n = {n} ({', '.join(better)})")
    if not compared:
        return ""
    said = (
        f"In {len(groups)} pairs of a set and an n up to 10 a rival was trained on the same images: {compared} scores, "
        f"and ubend is first in {compared - len(behind)}"
    )
    return f"{said}; not in: {'; '.join(behind)}." if behind else f"{said}."


def steps_made(rows: Sequence[dict[str, str]]) -> str:
    """Say how many steps each tool made in its minutes: a slow one has hardly begun."""
    steps: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        steps[row["tool"]].append(int(row["steps"]))
    made = (f"{NAMES[tool]} {min(of):,} to {max(of):,}" for tool in TOOLS if (of := steps[tool]))
    return f"Steps in that time: {'; '.join(made)}."


def clock_kept(rows: Sequence[dict[str, str]]) -> str:
    """Say how long the command of training took, from its start to its end, of the minutes that it was given."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["command_minutes"]:
            ratios[row["tool"]].append(float(row["command_minutes"]) / float(row["minutes_asked"]))
    found = (
        f"{NAMES[tool]} {min(of):.2f} to {max(of):.2f} ({len(of)} run{'s' * (len(of) > 1)})"
        for tool in TOOLS
        if (of := ratios[tool])
    )
    said = "; ".join(found)
    return f" The whole command `ubend train` took, of the minutes given: {said}." if said else ""


LEGEND = """\
In bold is who is ahead of every other over the seeds that both have, so on the same images. Of several seeds the mean,
and in brackets the lowest and the highest; without brackets it is one seed. A seed says which images are trained on and
how the network begins; the n images are the first n of one list a seed. {folds}

V_Rand and V_Info are those after thinning, at the best of 11 thresholds, from the probabilities. MONAI and nnU-Net
separate no objects: on dsb2018 and coelho2009_nuclei they learn the foreground, and its connected pieces are their
objects; they have nothing else, and drop no specks, which a few noisy images have by the thousand: pooled, these weigh
more than in the mean of the images. StarDist finds star-convex objects and has no place in the other sets.
"nnU-Net, cut" is its network, augmentation, loss and optimiser, with the learning rate falling to 0 within the minutes,
on patches of 256×256, two a step: its 250,000 steps would take days. What each rival does is written at the head of its
file in benchmarks/rivals/.

The minutes are those of training. Of the rivals they begin after imports, reading and compiling and end with the last
step; ubend's also hold the preparation of images, validation and the choice of the rules for objects."""


def draw(table: Table, setting: tuple[str, str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in FOLDS if any(place[0] == name for place in table)]
    colours = dict(zip(TOOLS, ("#0b5fa5", "#7fb2dd", "#2e8b57", "#d9822b", "#a23b72"), strict=True))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.5 * lines), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        score = FOLDS[name].scores[0]
        for tool in TOOLS:
            points = {n: table[s, n, c, t] for s, n, c, t in sorted(table) if (s, c, t) == (name, score, tool)}
            if not points:
                continue
            n, means = list(points), [point.mean for point in points.values()]
            low, high = ([fold(point.values) for point in points.values()] for fold in (min, max))
            axis.plot(n, means, "o-", color=colours[tool], markersize=4, label=NAMES[tool].replace("`", ""))
            axis.fill_between(n, low, high, color=colours[tool], alpha=0.18, linewidth=0)
        published = FOLDS[name].published
        if published is not None:
            label = "U-Net 2015: 30 images, hidden test set"
            axis.axhline(published, color="0.35", linestyle="--", linewidth=1, label=label)
        axis.set_xscale("log")
        axis.set_xlim(0.85, 24)
        axis.set_xticks(N, [str(n) for n in N])
        axis.minorticks_off()
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("annotated images")
        axis.set_ylabel(score)
        axis.grid(alpha=0.25)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    shown = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    order = [NAMES[tool].replace("`", "") for tool in TOOLS]
    shown = {label: shown[label] for label in sorted(shown, key=lambda one: order.index(one) if one in order else 9)}
    figure.suptitle(f"{setting[0]} minutes of training on {_cores(setting[1])}", fontsize=11)
    spare = axes.flat[-1] if len(names) < axes.size else None
    if spare is not None:
        spare.legend(list(shown.values()), list(shown), loc="center", frameon=False, fontsize=9)
        figure.tight_layout()
    else:
        rows = -(-len(shown) // 3)
        figure.legend(list(shown.values()), list(shown), loc="lower center", ncols=3, frameon=False, fontsize=8)
        figure.tight_layout(rect=(0, 0.06 * rows / lines, 1, 1))
    figure.savefig(PLOT, dpi=110)
    plt.close(figure)
    print(f"Wrote {PLOT}")


def _cores(cores: str) -> str:
    return "one core" if cores == "1" else f"{cores} cores"


def report() -> None:
    rows = newest(kept(RESULTS))
    if not rows:
        sys.exit(f"nothing has been measured yet: {RESULTS} is not there")
    parts = []
    for k, setting in enumerate(settings(rows)):
        table = table_of(rows, setting)
        head = f"**{setting[0]} minutes of training on {_cores(setting[1])}.** {standing(table)}".rstrip()
        picture = ""
        if k == 0:
            draw(table, setting)
            picture = (
                "\n\n![Score against the number of annotated images](few_images.png)\n\n"
                "Bands: from the lowest to the highest of the seeds. Dashed: V_Rand of the U-Net of 2015 as published, "
                "trained on all 30 slices for ten hours and scored on the organisers' hidden test set, so on other "
                "images than these."
            )
        of_table = [row for row in rows if key_of(row)[-2:] == setting]
        parts.append(f"{head}{picture}\n\n{markdown_of(table)}\n\n{steps_made(of_table)}{clock_kept(of_table)}")
    folds = " ".join(f"{name}: {fold.about}." for name, fold in FOLDS.items())
    versions = sorted({one for row in rows for one in row["versions"].split(", ")})
    dates, machines = sorted({row["date"] for row in rows}), sorted({row["machine"] for row in rows})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    measured = f"Measured {when} on {'; '.join(machines)}; {', '.join(versions)}."
    command = (
        "Command: `python benchmarks/few_images.py --cores 0 1`, then `--report`; every run is a row of "
        "benchmarks/results/few_images.csv."
    )
    write_section("few_images", "\n\n".join([*parts, LEGEND.format(folds=folds), measured, command]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*FOLDS, []], help="which sets; without it all")
    parser.add_argument("--n", type=int, nargs="+", default=list(N), help="numbers of images to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, for each run")
    parser.add_argument(
        "--cores", nargs="+", default=[",".join(map(str, sorted(os.sched_getaffinity(0))))], metavar="A,B",
        help="groups of cores, a run at a time on each: 0 1 is two runs side by side, 0,1 one on two cores",
    )  # fmt: skip
    parser.add_argument("--total", type=float, default=50.0, help="minutes after which nothing may still run")
    parser.add_argument("--out", type=Path, default=Path("runs") / "few_images", help="for models and results")
    parser.add_argument("--again", action="store_true", help="repeat what has been measured; the newest row counts")
    for tool in RIVALS:
        default = os.environ.get(f"UBEND_PYTHON_{tool.upper()}", sys.executable)
        parser.add_argument(f"--python-{tool}", default=default, metavar="PYTHON", help=f"that has {tool}")
    parser.add_argument("--report", action="store_true", help="only table and plot, from what has been measured")
    parser.add_argument("--check", action="store_true", help="only the folds")
    chosen = parser.parse_args()
    if chosen.report:
        report()
        return
    if not DATA.is_dir():
        sys.exit(f"the real images are not here: {DATA}")
    if found := [fault for name in FOLDS for fault in faults(name)]:
        sys.exit("\n".join(found))
    if chosen.check:
        print("No image is both trained on and scored, and each order holds its images once.")
        return
    run_all(chosen)


if __name__ == "__main__":
    main()
