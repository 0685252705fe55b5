"""The command line: one verb a job. Every verb ends by saying what it wrote and what to do next.

Nothing heavy is imported before a verb runs, so that `ubend --help` answers at once.
"""

import csv
import io
import json
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ubend.errors import FileError, InputError, Stopped, UbendError
from ubend.faces.options import (
    DEMO_SCENES,
    EXPORTS,
    STDOUT,
    Data,
    Device,
    Ignore,
    Json,
    LabelFolder,
    Memory,
    Minutes,
    ModelPath,
    Out,
    Overwrite,
    Quiet,
    RecipeName,
    Seed,
    TaskKind,
    UsageError,
    exports,
    recipes,
    scenes,
    usage_in_one_line,
)
from ubend.faces.terminal import (
    WARNING,
    Show,
    command,
    complain,
    console,
    count,
    escape,
    first_and_more,
    progress,
    say_command,
    say_next,
    warn,
)

if TYPE_CHECKING:
    from ubend.data.large import LargeImage
    from ubend.faces.summaries import Prediction
    from ubend.run.contract import Contract
    from ubend.run.evaluation import Evaluation
    from ubend.run.folds import FoldsState
    from ubend.run.keeper import Resumed
    from ubend.run.model import Model
    from ubend.run.scale import LargePrediction
    from ubend.run.training import Progress as TrainingProgress

BEGAN = perf_counter()
"""When the command began, but for the start of Python: what --minutes counts from."""

app = typer.Typer(
    name="ubend",
    help="Train a U-Net from a handful of annotated images, and segment images of any size with it.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if console.is_terminal else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LARGE = "Large images (docs/large-images.md)"
OTHER_RULES = "Single objects, other than training chose"

STOPPED = 130
"""Exit code after Ctrl-C, as shells expect it."""
OVERHEADS = (572, 1020, 1532, 2044)
"""Tiles whose cost `describe` tells, beside the smallest."""
FEW_IMAGES = 10
"""Up to so many it does not matter how long the network waits for files."""
AFTER_TRAINING, MOST_RESERVED = 1.0, 0.1
"""Seconds that a report takes beside looking at images, with the end of Python; share of the minutes kept for it."""
REPORT_COST = 4
"""Times a validation that looking at the same images in 8 views costs: much of a validation is not in the views."""

KINDS = {
    "binary": "foreground and background (binary)",
    "classes": "classes",
    "instances": "single objects (instances)",
}
"""What labels mean, for people."""


def run() -> None:
    """Run the command line; what went wrong becomes one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that a pipe or terminal cannot show stops nothing
    try:
        code = app(prog_name="ubend", standalone_mode=False)
    except UsageError as error:
        _fail(usage_in_one_line(error))
    except Stopped as stopped:
        _fail(str(stopped), code=128 + stopped.signal if stopped.signal else 1)
    except UbendError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", code=STOPPED)
    except MemoryError:
        _fail("out of memory: close other programs; smaller can be --tile of predict, and [tiles] of a recipe")
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename or 'file system'}: {error.strerror or error}")
    else:
        if code == STOPPED:
            _fail("stopped", code=STOPPED)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int = 2) -> None:
    complain(message)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from ubend import __version__

        typer.echo(__version__)
        raise typer.Exit
    console.quiet = False  # until an option of the verb says otherwise
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def demo(
    out: Out = Path("ubend-demo"),
    minutes: Annotated[float, typer.Option("--minutes", "-m", help="How long to train.")] = 3.0,
    sample: Annotated[
        str, typer.Option(help=f"What to simulate: {', '.join(DEMO_SCENES)}.", autocompletion=scenes)
    ] = "cells",
    overwrite: Overwrite = False,
    device: Device = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Try all of it on simulated images: no data needed.

    Simulates annotated images, trains on them, segments others and scores the results.
    """
    if sample not in DEMO_SCENES:
        raise InputError(f"no sample {sample!r}: there are {', '.join(DEMO_SCENES)}")
    if not minutes > 0:
        raise InputError(f"training takes more than 0 minutes, not {minutes:g}")
    from ubend.faces.demo import clear_earlier_demo, simulate_folders, write_picture
    from ubend.faces.summaries import Prediction
    from ubend.run.evaluation import evaluate_folders

    clear_earlier_demo(out, overwrite=overwrite)
    simulate_folders(sample, out, seed)
    console.print(f"Simulated {DEMO_SCENES[sample]}: 8 images to train on, 4 others to test, in {escape(str(out))}")
    say_command("ubend train", out / "train", "--out", out / "model", f"--minutes {minutes:g}")
    model = _train(
        out / "train", out / "model", began=perf_counter(), minutes=minutes, device=device, seed=seed,
        overwrite=overwrite,
    )  # fmt: skip
    say_command("ubend predict", out / "model", out / "test" / "images", "--out", out / "results")
    done = Prediction(out / "results", model.contract.task.kind)
    _predict(model, out / "test" / "images", out / "results", done, overwrite=overwrite)
    done.print(console)
    say_command("ubend evaluate", out / "results", out / "test")
    evaluation = evaluate_folders(out / "results", out / "test", task=model.contract.task.kind)
    _print_scores(evaluation)
    picture = write_picture(out, model.contract.task, evaluation)
    console.print(
        f"\nLook at [bold]{escape(str(picture))}[/]: image, truth and result of images it was not trained on."
    )
    say_next(
        "ubend train DATA --out RUN", why=", your own: put images into DATA/images and their labels into DATA/masks"
    )


@app.command()
def train(
    data: Annotated[
        Path, typer.Argument(help="Folder with images and labels: images/ + masks/, x.tif + x_mask.tif, …")
    ],
    out: Out,
    recipe: RecipeName = "default",
    minutes: Minutes = None,
    steps: Annotated[int | None, typer.Option(help="How many steps to train, instead of minutes.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Hold each image out once, to know how good a model is: so many trainings more."),
    ] = None,
    labels: LabelFolder = None,
    task: TaskKind = None,
    ignore: Ignore = None,
    device: Device = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT if it was stopped; else begin it.")
    ] = False,
    overwrite: Overwrite = False,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on a folder of annotated images.

    A run may be stopped at any moment (Ctrl-C, a time limit, a power cut) and goes on with --resume as if it had not
    been. Several GPUs or machines: torchrun --nproc-per-node N -m ubend train … (docs/cluster.md).
    """
    _check_free(_of_files(json_file), overwrite=overwrite)
    _train(
        data, out, began=BEGAN, recipe=recipe, minutes=minutes, steps=steps, labels=labels, task=task, ignore=ignore,
        device=device, seed=seed, folds=folds, resume=resume, overwrite=overwrite, json_file=json_file,
    )  # fmt: skip
    say_next("ubend predict", out, "IMAGES --out RESULTS")


@app.command()
def check(
    data: Data,
    labels: LabelFolder = None,
    task: TaskKind = None,
    ignore: Ignore = None,
    json_file: Json = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the worst images with their labels and what is wrong, as PNG.")
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Say what is wrong with a data set, and how to mend it.

    The exit code is 1 if there are errors.
    """
    from ubend.data.doctor import check as examine
    from ubend.faces.findings import print_report, save_contact_sheet, summary

    _check_free([*_of_files(json_file), *_of_files(picture)], overwrite=overwrite, picture=picture)
    with progress() as show:
        report = examine(
            data, labels=labels, task=task, ignore=ignore,  # type: ignore[arg-type]
            on_image=lambda done, of: show("Looking", done / of, f"{done} of {of}", None),
        )  # fmt: skip
    print_report(console, report)
    meaning = f"; labels: {KINDS[report.task]}" if report.task else ""
    console.print(f"\n{escape(str(data))}, {count(report.images, 'image')}{meaning}: [bold]{summary(report)}[/]")
    _write_json(report.to_dict(), json_file, overwrite=overwrite)
    if picture is not None:
        drawn = save_contact_sheet(picture, report, overwrite=overwrite)
        console.print(
            f"Wrote {escape(str(picture))}: look at it." if drawn else "No picture: there is nothing to show."
        )
    chosen = _chosen(labels, task, ignore)
    if report.errors:
        say_next("ubend check", data, *chosen, why=", mend the errors, then again")
        raise typer.Exit(1)
    why = ", a model; warnings do not stop it" if report.warnings else ", a model"
    say_next("ubend preview", data, *chosen, "--out preview.png", why=", look at what training makes of them")
    say_next("ubend train", data, *chosen, "--out RUN --minutes 10", why=why, then=True)


@app.command()
def predict(
    model: ModelPath,
    images: Annotated[Path, typer.Argument(help="Folder of images, or one image.")],
    out: Out,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write the probabilities.")] = False,
    rois: Annotated[bool, typer.Option("--rois", help="Also write the objects as ImageJ ROIs: STEM_rois.zip.")] = False,
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Also write the objects as GeoJSON for QuPath: STEM.geojson.")
    ] = False,
    outlines: Annotated[
        bool,
        typer.Option("--outlines", help="Also write a picture, outlines on the image, for looking: STEM_outlines.png."),
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Objects: foreground is above this probability.", rich_help_panel=OTHER_RULES)
    ] = None,
    split: Annotated[
        float | None,
        typer.Option(
            help="Part objects at waists so deep: px, or share of a learned distance.", rich_help_panel=OTHER_RULES
        ),
    ] = None,
    smallest: Annotated[
        int | None, typer.Option(help="Drop objects of fewer pixels.", rich_help_panel=OTHER_RULES)
    ] = None,
    certainty: Annotated[
        float | None,
        typer.Option(
            help="Drop objects whose pixels do not reach this probability on average; 0 drops none.",
            rich_help_panel=OTHER_RULES,
        ),
    ] = None,
    fill_holes: Annotated[
        bool | None,
        typer.Option("--fill-holes/--keep-holes", help="Fill holes in objects.", rich_help_panel=OTHER_RULES),
    ] = None,
    gap: Annotated[
        int | None,
        typer.Option(help="Close gaps of twice so many pixels between objects.", rich_help_panel=OTHER_RULES),
    ] = None,
    clear_border: Annotated[
        bool | None,
        typer.Option(
            "--clear-border/--keep-border", help="Leave out objects cut by the border.", rich_help_panel=OTHER_RULES
        ),
    ] = None,
    tile: Annotated[
        int | None, typer.Option(help="Rows and columns a tile may have at most; without it what the memory holds.")
    ] = None,
    memory: Memory = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Segment at the model's pixel size; results keep the image's pixels.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(help="Blocks are computed by so many processes here.", rich_help_panel=LARGE)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Blocks are computed by this Dask scheduler's workers.", rich_help_panel=LARGE)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was stopped.", rich_help_panel=LARGE)
    ] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Segment images of any size, and measure the objects.

    Each image becomes STEM.tif with its labels; single objects are listed in tables too (docs/outputs.md). OME-Zarr,
    and TIFFs that do not fit the memory, are read, computed and written block by block.
    """
    from ubend.faces.pictures import outlined
    from ubend.faces.summaries import Prediction
    from ubend.run.device import choose_device, free_memory
    from ubend.run.folders import OUTLINES, Extras
    from ubend.run.memory import parse_bytes
    from ubend.run.model import load
    from ubend.run.scale import check_names, large_images, others_than

    _check_free(_of_files(json_file), overwrite=overwrite)
    limit = None if memory is None else parse_bytes(memory)
    loaded = load(model, device=device)
    asked = {
        "threshold": threshold, "split": split, "smallest": smallest, "certainty": certainty, "fill_holes": fill_holes,
        "gap": gap, "clear_border": clear_border,
    }  # fmt: skip
    loaded.contract = _with_rules(loaded.contract, {name: value for name, value in asked.items() if value is not None})
    extras = Extras(rois=rois, geojson=geojson, paint=outlined if outlines else None)
    by_others, free = workers is not None or scheduler is not None, free_memory(choose_device("cpu"))
    large = large_images(images, loaded.contract, limit or free, every=by_others or resume)
    small = others_than(images, large)
    if large:
        check_names([*large, *small])
    if large and extras != Extras():
        raise InputError(f"--rois, --geojson and --outlines are for images that fit the memory, not {large[0].name}")
    if large and resample:
        raise InputError(
            f"--resample is for images that fit the memory, not {large[0].name}; of an OME-Zarr the level nearest to "
            f"the model's pixel size is segmented"
        )
    if by_others and not large:
        raise InputError(f"{images} holds no Zarr and no TIFF: only these are computed by --workers and --scheduler")
    done = Prediction(out, loaded.contract.task.kind)
    if large:
        _predict_large(
            model, large, out, loaded.contract, workers, scheduler, done, probabilities=probabilities, tile=tile,
            memory=limit if workers is None else (limit or free // 2) // (workers + 1),
            device=device, resume=resume, overwrite=overwrite,
        )  # fmt: skip
    if small or not large:
        _predict(
            loaded, images, out, done, without=large, probabilities=probabilities, extras=extras, tile=tile,
            resample=resample, memory=limit, overwrite=overwrite,
        )  # fmt: skip
    done.print(console)
    _write_json(done.for_programs(), json_file, overwrite=overwrite)
    if loaded.contract.task.kind == "instances":
        console.print("Labels: 0 is background, 1 to n are the objects.")
    else:
        console.print("Labels: " + ", ".join(str(value) for value in loaded.contract.task.values) + ", as in training.")
    drawn = [image.labels.with_name(f"{image.name}{OUTLINES}") for image in done.images] if outlines else []
    if drawn:
        console.print(f"Drew the outlines on the images: {first_and_more(drawn)}.")
    if done.for_napari is not None:
        other = "" if drawn else " (or predict with --outlines, for pictures)"
        say_next("napari --plugin ubend", done.for_napari, why=f", look at them in napari{other}")
    elif done.images and not large and not drawn:
        console.print("Pictures to look at: predict with --outlines.")
    if not all(path.is_dir() for path in large) or small or not large:  # `ubend evaluate` reads no Zarr
        task = loaded.contract.task
        said = f"TRUTH --task {task.kind}" + ("" if task.ignore_label is None else f" --ignore {task.ignore_label}")
        say_next("ubend evaluate", out, said, why=", with the truth at hand", then=done.for_napari is not None)
    if done.failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    results: Annotated[
        Path, typer.Argument(help="Folder of label images, as `ubend predict` writes them; or one label image.")
    ],
    truth: Annotated[
        Path,
        typer.Argument(help="Folder of label images of the same names, or an annotated folder; or one label file."),
    ],
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Also write a table: one row an image.")] = None,
    json_file: Json = None,
    every: Annotated[bool, typer.Option("--all", help="Print all images, not only the worst of many.")] = False,
    em2012: Annotated[
        bool, typer.Option("--em2012", help="Also pixel, Rand and warping error of the EM challenge of 2012; slow.")
    ] = False,
    task: TaskKind = None,
    ignore: Ignore = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Score results against the truth: each image, and all."""
    from ubend.run.evaluation import evaluate_folders

    _check_free([*_of_files(csv_file), *_of_files(json_file)], overwrite=overwrite)
    evaluation = evaluate_folders(results, truth, task=task, ignore=ignore, em2012=em2012)  # type: ignore[arg-type]
    console.print(escape(f"Results: {results}, truth: {truth}"), soft_wrap=True)
    _print_scores(evaluation, every=every)
    if csv_file is not None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(evaluation.to_table())
        _write_text(csv_file, text.getvalue(), overwrite=overwrite)
    _write_json(evaluation.to_dict(), json_file, overwrite=overwrite)


@app.command()
def preview(
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for a picture of each image; or a .png, for the first image.")
    ],
    recipe: RecipeName = "default",
    labels: LabelFolder = None,
    task: TaskKind = None,
    ignore: Ignore = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Draw what training makes of your images.

    For each image a picture of gaps, weights, bent samples and tiles.
    """
    from ubend.faces.preview import files_of, prepare_preview, save_preview

    ready = prepare_preview(data, recipe=recipe, labels=labels, task=task, ignore=ignore)  # type: ignore[arg-type]
    files = files_of(out, ready, overwrite=overwrite)
    files[0].parent.mkdir(parents=True, exist_ok=True)
    with progress() as show:
        for number, path in enumerate(files):
            show("Drawing", number / len(files), path.name, None)
            save_preview(path, ready, number, seed=seed, overwrite=overwrite)
    console.print(f"Wrote {first_and_more(files)}: look at {'it' if len(files) == 1 else 'them'}.")
    say_next("ubend train", data, *_chosen(labels, task, ignore), "--out RUN --minutes 10")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    data: Annotated[Path, typer.Argument(help="The annotated folder it was trained on, or another one.")],
    images: Annotated[
        Path | None, typer.Option(help="Images without labels, to be ranked: which to annotate next.")
    ] = None,
    labels: LabelFolder = None,
    device: Device = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write the report of a run anew, RUN/report.html.

    That of `ubend train` may lack time for some held-out images; this one looks at all of them.
    """
    from ubend.faces.report import write_report

    path = write_report(run, data, images=images, labels=labels, device=device, overwrite=overwrite)
    console.print(f"Wrote {escape(str(path))}: look at it in a browser.")


@app.command(name="learning-curve")
def learning_curve(
    data: Data,
    out: Out,
    recipe: RecipeName = "default",
    minutes: Annotated[
        float | None, typer.Option("--minutes", "-m", help="For all trainings together, which share them.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps each training takes, instead of minutes.")] = None,
    repeats: Annotated[int, typer.Option(help="How often the curve is drawn; each holds other images out.")] = 5,
    labels: LabelFolder = None,
    task: TaskKind = None,
    ignore: Ignore = None,
    device: Device = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    json_file: Json = None,
    quiet: Quiet = False,
) -> None:
    """Say what more annotated images would bring.

    Trains with fewer of them, and with all: how good each model is on images that it has not seen.
    """
    from ubend.data.annotated import find_pairs, read_pairs
    from ubend.faces.curves import print_curve, print_plan, save_curve
    from ubend.run.learning_curve import learning_curve as draw_curve
    from ubend.run.runs import check_free

    _check_free(_of_files(json_file), overwrite=overwrite)
    names = ("curve.csv", "curve.json", "curve.png")
    check_free(out, names, overwrite=overwrite)
    files = [out / name for name in names]
    with progress() as show:

        def on_step(at: "TrainingProgress") -> None:
            what = f"Training {at.fold} of {at.folds}"
            show(what, at.share, _step_in_words(at), at.seconds_left)

        curve = draw_curve(
            read_pairs(find_pairs(data, labels=labels)), recipe=recipe, minutes=minutes, steps=steps, repeats=repeats,
            task=task, ignore=ignore, device=device, seed=seed, on_step=on_step,  # type: ignore[arg-type]
            on_plan=lambda plan, contract: print_plan(console, plan, contract),
        )  # fmt: skip
    print_curve(console, curve)
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(curve.to_table())
    _write_text(files[0], text.getvalue(), overwrite=overwrite)
    _write_json(curve.to_dict(), files[1], overwrite=overwrite)
    _write_json(curve.to_dict(), json_file, overwrite=overwrite)
    save_curve(files[2], curve, overwrite=overwrite)
    console.print(f"Wrote {escape(str(files[2]))}: look at it.")
    say_next("ubend train", data, "--out RUN --folds 5", why=", a model of all images")


@app.command(name="verify-tiling")
def verify_tiling(
    model: ModelPath,
    image: Annotated[Path, typer.Argument(help="An image or a Zarr that fits the memory; of a stack the first page.")],
    tile: Annotated[
        list[int] | None, typer.Option(help="A tile size to compare; may be repeated. Without it several.")
    ] = None,
    memory: Memory = None,
    device: Device = None,
    json_file: Json = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Show that tiles leave no seams in an image.

    Predicts it in one piece and in tiles. The exit code is 1 if they differ.
    """
    from ubend.faces.summaries import print_verification, verification_for_programs
    from ubend.run.memory import parse_bytes
    from ubend.run.model import load
    from ubend.run.verification import verify_tiling as verify

    _check_free(_of_files(json_file), overwrite=overwrite)
    limit = None if memory is None else parse_bytes(memory)
    with progress() as show:
        found = verify(
            load(model, device=device), _first_plane(image), tiles=tile, memory=limit,
            on_tile=lambda done, of: show("Predicting", done / of, f"{done} of {of}", None),
        )  # fmt: skip
    print_verification(console, found)
    _write_json(verification_for_programs(found), json_file, overwrite=overwrite)
    if not found.passed:
        raise typer.Exit(1)


@app.command()
def export(
    model: ModelPath,
    to: Annotated[str, typer.Option("--to", help=f"What for: {', '.join(EXPORTS)}.", autocompletion=exports)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: NAME.onnx, or NAME.zip for bioimageio.")],
    image: Annotated[
        Path | None,
        typer.Option(help="An image like those trained on: the test and the picture of a bioimageio package."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a model for other programs: ONNX, bioimage.io.

    They do not need ubend (docs/export.md).
    """
    if to not in EXPORTS:
        raise InputError(f"no export to {to!r}: there is {' or '.join(EXPORTS)}")
    if image is not None and to != "bioimageio":
        raise InputError(f"--image is for --to bioimageio: {to} holds no image")
    from ubend.run.model import load
    from ubend.share.bioimageio import export_bioimageio
    from ubend.share.onnx import export_onnx

    loaded = load(model, device="cpu")
    if to == "onnx":
        difference = export_onnx(loaded, out, overwrite=overwrite)
    else:
        shown = None if image is None else _first_plane(image)
        difference = export_bioimageio(loaded, out, image=shown, overwrite=overwrite)
    console.print(f"Wrote {escape(str(out))}. Probabilities differ from the network's by at most {difference:.0e}.")
    if loaded.contract.statistics == "image":
        console.print(
            "ubend predict works by the statistics of each image, this file by those of the training: on brighter or "
            "dimmer images than those trained on it does worse (docs/export.md)."
        )
    if to == "onnx":
        console.print("Without torch: ubend.share.onnx.OnnxModel(…).segment(image); other programs: docs/export.md")
        return
    if image is None:
        console.print("Its picture shows noise: say --image FILE, an image like those trained on.")
    console.print("Before you publish it, put authors and licence into its rdf.yaml. Test it:")
    say_command("bioimageio test", out)


@app.command()
def describe(
    what: Annotated[
        str,
        typer.Argument(
            help="A recipe (default, paper, a TOML file), a run folder or a model file.", autocompletion=recipes
        ),
    ],
    size: Annotated[
        int | None, typer.Option(help="Rows and columns of the input; without it the recipe's tile.")
    ] = None,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Print what a model or a recipe is.

    Of a model what it is for, expects and was trained on; of both the layers, their sizes and cost.
    """
    from ubend.run.model import load
    from ubend.run.recipe import RECIPES, load_recipe

    _check_free(_of_files(json_file), overwrite=overwrite)
    looks_like_a_path = what.endswith(".safetensors") or Path(what).name != what
    if what in RECIPES or what.endswith(".toml") or not (looks_like_a_path or Path(what).exists()):
        if json_file is not None:
            raise InputError(f"--json writes what a model says of itself, and {what} is a recipe: name a model")
        recipe = load_recipe(what)
        _print_network(recipe.network, _tile_in_image(recipe) if size is None else size)
        if recipe.about:
            console.print(escape(f"Recipe {what}: {recipe.about}."))
        return
    from ubend.faces.model_card import card_for_programs, print_card

    contract = load(what, device="cpu").contract
    print_card(console, contract, name=what)
    console.print("\n[bold]Its layers[/]")
    _print_network(contract.network, _tile_in_image(contract.recipe) if size is None else size)
    _write_json(card_for_programs(contract), json_file, overwrite=overwrite)


def _train(
    data: Path,
    out: Path,
    *,
    began: float,
    minutes: float | None = None,
    steps: int | None = None,
    json_file: Path | None = None,
    **choices: Any,
) -> "Model":
    """Train, write the report, and say what came of it; all of it within the minutes from when it began."""
    from ubend.faces.report import seconds_for_report
    from ubend.faces.summaries import Training, print_training
    from ubend.run.clock import Clock
    from ubend.run.model import FILE_NAME
    from ubend.run.processes import are_several
    from ubend.run.recipe import load_recipe
    from ubend.run.runs import FOLDS, LOG, RECIPE, REPORT, check_free, train_folder

    is_first = not are_several() or os.environ["RANK"] == "0"
    console.quiet = console.quiet or not is_first
    if not choices.get("resume"):
        check_free(out, (FILE_NAME, RECIPE, LOG, FOLDS, REPORT), overwrite=choices["overwrite"])
    usual = load_recipe(choices.get("recipe", "default"))  # a wrong one is told before a look at the images
    asked = 0.0 if steps else minutes or usual.training.minutes
    looking = seconds_for_report(asked)
    reserved = min(looking + AFTER_TRAINING, MOST_RESERVED * 60 * asked) if asked > 0 else 0.0
    clock = Clock(start=began, reserved=reserved)
    _check_first(data, choices.get("labels"), choices.get("task"), choices.get("ignore"))
    with progress() as show:

        def on_step(at: "TrainingProgress") -> None:
            what = f"Fold {at.fold} of {at.folds}" if at.fold else "Training"
            after = reserved or AFTER_TRAINING + min(looking, REPORT_COST * clock.validation or looking)
            left = at.seconds_left + after
            passed = clock.seconds()
            shown[0] = max(shown[0], passed / (passed + left))  # of the time, not of the steps: more follows them
            show(what, shown[0], _step_in_words(at), left)
            waiting[0] = at.waiting

        def on_validation(step: int, evaluation: "Evaluation") -> None:
            told = {name: evaluation.overall[name] for name in (next(iter(evaluation.overall)), evaluation.headline)}
            console.print(f"  after step {step}, on held-out images: {_in_one_line(told)}")

        def on_resume(resumed: "Resumed") -> None:
            where = f" of fold {resumed.fold}" if resumed.fold else ""
            console.print(f"Going on after step {resumed.step}{where} ({resumed.share:.0%} of it is done).")
            for note in resumed.notes:
                console.print(f"  [{WARNING}]{escape(note)}[/]")

        def on_plan(contract: "Contract", trained_on: int, held_out: int) -> None:
            planned.append(True)
            _print_plan(contract, trained_on, held_out)
            if dealt:
                _print_folds(dealt[0], contract)

        def on_folds(state: "FoldsState") -> None:
            if state.of_all is not None:
                _print_scores(state.of_all)
            elif state.of_fold is not None:
                of = f"{state.done} of {state.dealt.number}"
                console.print(f"  fold {of}, on its images: {_in_one_line(state.of_fold.overall)}")
            else:
                dealt.append(state)

        shown, waiting = [0.0], [0.0]
        planned: list[bool] = []
        dealt: list[FoldsState] = []
        model = train_folder(
            data, out, minutes=minutes, steps=steps, clock=clock, on_step=on_step, on_validation=on_validation,
            on_plan=on_plan, on_folds=on_folds, on_resume=on_resume, **choices,
        )  # fmt: skip
    if not is_first:
        return model
    if not planned:
        console.print(f"The run in {escape(str(out))} is done already.")
    _write_report(
        model, data, out, labels=choices.get("labels"), seconds=looking,
        overwrite=choices["overwrite"] or bool(choices.get("resume")),
    )  # fmt: skip
    made = Training(out, model.contract, perf_counter() - began, waiting[0] if planned else None)
    print_training(console, made)
    _write_json(made.for_programs(), json_file, overwrite=choices["overwrite"])
    return model


def _chosen(labels: str | None, task: str | None, ignore: int | None) -> list[str]:
    """Write what was said of the labels as in a command line, for the next command."""
    said = (("--labels", labels), ("--task", task), ("--ignore", ignore))
    return [f"{name} {shlex.quote(str(value))}" for name, value in said if value is not None]


def _check_first(data: Path, labels: str | None, task: str | None, ignore: int | None) -> None:
    """Look at some of the images before training: print warnings briefly; print errors, and stop."""
    from ubend.data.annotated import find_pairs, read_pairs
    from ubend.data.doctor import check as examine
    from ubend.faces.findings import print_in_short, print_report

    report = examine(data, labels=labels, task=task, ignore=ignore, quick=True)  # type: ignore[arg-type]
    print_in_short(console, report)
    if not report.errors:
        return
    print_report(console, replace(report, findings=report.errors))
    if task is not None or ignore is not None:
        said = "--task" if task is not None else "--ignore"
        console.print(f"{said} says what the labels mean, so training goes on all the same.\n")
        return
    wrong = {path for finding in report.errors for case in finding.cases for path in case.files}
    pairs = find_pairs(data, labels=labels)  # this and the next line raise what training would stop at
    read_pairs(pair for pair in pairs if not wrong.isdisjoint((*pair.images, pair.labels)))
    first = report.errors[0].fault.what
    raise InputError(
        f"{first}: mend {data} first (`ubend check` says all that is wrong), or say by --task that the labels are right"
    )


def _write_report(
    model: "Model", data: Path, out: Path, *, labels: str | None, seconds: float, overwrite: bool
) -> None:
    """Write the report of a run; a run that ended well is no failure where there can be none."""
    from ubend.faces.report import write_report

    try:
        write_report(out, data, labels=labels, model=model, seconds=seconds, overwrite=overwrite)
    except (UbendError, MemoryError) as error:
        warn(f"no report: {error}")


def _step_in_words(at: "TrainingProgress") -> str:
    return f"step {at.step}  energy {at.energy:.3f}  {at.speed:.1f} steps/s"


def _print_plan(contract: "Contract", trained_on: int, held_out: int) -> None:
    network = contract.network
    kind = KINDS[contract.task.kind]
    kind = f"{network.classes} {kind}" if contract.task.kind == "classes" else kind
    console.print(
        f"{count(trained_on, 'image')} to train on, {held_out} held out; {count(network.in_channels, 'channel')}; "
        f"labels: {kind}, as seen from their values (--task says otherwise)"
    )
    plan, *reasons = contract.provenance["plan"]
    console.print(f"Plan: [bold]{plan}[/]")
    for reason in reasons:
        console.print(f"  {reason}")
    if contract.task.ignore_label is not None:
        console.print(
            f"Pixels with the label {contract.task.ignore_label} count as not labelled (--ignore says otherwise)"
        )


def _print_folds(state: "FoldsState", contract: "Contract") -> None:
    """Say how the time is shared, and what is special about the folds."""
    length = contract.recipe.training
    each = f"{length.minutes:.2g} minutes" if length.minutes else f"{length.steps} steps"
    console.print(f"{state.dealt.number} folds of {each}, then the model {each}, on all images")
    for note in state.dealt.notes:
        console.print(escape(note))


def _predict(model: "Model", images: Path, out: Path, done: "Prediction", **choices: Any) -> None:
    """Segment a folder, say what came of it, and note it."""
    from ubend.faces.unlike import warn_of_diameters, warn_of_unlike
    from ubend.run.folders import predict_folder

    with progress() as show:
        begun, files, told = 0, 0, 0
        under_way = ""

        def on_image(number: int, of: int, name: str) -> None:
            nonlocal begun, files, under_way
            begun, files, under_way = number, of, f"{name}  {number} of {of}"

        def on_smaller_tile(old: int, new: int) -> None:
            nonlocal told
            told += 1
            if told == 1:
                _say_smaller_tile(old, new)

        try:
            result = predict_folder(
                model, images, out, on_image=on_image, on_smaller_tile=on_smaller_tile,
                on_share=lambda share: show("Segmenting", share, under_way, None), **choices,
            )  # fmt: skip
        except KeyboardInterrupt:
            finished = (
                f"{max(begun - 1, 0)} of {count(files, 'file')} are done, in {out}" if files else "nothing is done"
            )
            raise Stopped(f"stopped; {finished}: --overwrite begins again", signal=signal.SIGINT) from None
    if len(result.failed) == 1 and not result.written:
        path, reason = next(iter(result.failed.items()))
        raise FileError(reason if str(path) in reason else f"{path}: {reason}")
    for path, reason in result.failed.items():
        complain(f"skipped {path.name}: {reason}")
    if not result.written:
        raise FileError(f"none of the images in {images} could be segmented")
    if result.other_sizes:
        _warn_of_sizes(result.other_sizes, model.contract.pixel_size)
    if result.unlike:
        warn_of_unlike(result.unlike, model.contract)
    if result.other_diameters:
        warn_of_diameters(result.other_diameters, model.contract)
    done.add_folder(result)
    if len(result.written) > FEW_IMAGES:
        console.print(f"The network waited for files {result.waiting:.1%} of the time.")


def _predict_large(
    model: Path,
    images: list[Path],
    out: Path,
    contract: "Contract",
    workers: int | None,
    scheduler: str | None,
    done: "Prediction",
    **choices: Any,
) -> None:
    """Segment images block by block, say what came of each, and note it."""
    from ubend.faces.unlike import warn_of_diameters, warn_of_unlike
    from ubend.run.scale import Progress, is_finished, predict_large
    from ubend.run.workers import engine_of

    with engine_of(workers, scheduler) as engine:
        for image in images:
            if choices["resume"] and is_finished(contract, image, out):
                console.print(f"{escape(image.name)} is finished: nothing to go on with.")
                continue
            under_way, began = Progress("blocks", 0, 1), perf_counter()
            try:
                with progress() as show:

                    def on_progress(at: Progress, show: Show = show, name: str = image.name) -> None:
                        nonlocal under_way
                        under_way = at
                        show(at.what.capitalize(), at.done / at.of, name, None)

                    result = predict_large(
                        model, image, out, engine=engine, objects=contract.objects, on_progress=on_progress,
                        on_open=lambda opened: _say_opened(opened, contract), on_smaller_tile=_say_smaller_tile,
                        on_unlike=lambda planes: warn_of_unlike(planes, contract), **choices,
                    )  # fmt: skip
            except KeyboardInterrupt:
                blocks = f"{under_way.done} of {under_way.of}" if under_way.what == "blocks" else "all"
                raise Stopped(
                    f"stopped; {blocks} blocks are kept: the same command with --resume goes on", signal=signal.SIGINT
                ) from None
            except UbendError as error:
                if len(images) == 1:
                    raise
                done.failed[image.name] = str(error)
                complain(f"skipped {image.name}: {error}")
                continue
            _say_large(result)
            done.add_large(result, perf_counter() - began)
            if result.other_diameters:
                warn_of_diameters(result.other_diameters, contract)


def _say_opened(image: "LargeImage", contract: "Contract") -> None:
    """Say which level is segmented, and what may be wrong with it, before hours are spent."""
    from ubend.run.prediction import differs_in_size

    planes = f", {len(image.planes)} planes" if len(image.planes) > 1 else ""
    level = f", level {image.level} of 0 to {len(image.levels) - 1}" if len(image.levels) > 1 else ""
    console.print(f"{escape(image.path.name)}: {image.rows}×{image.columns} px{level}{planes}.")
    missing = sum(map(image.missing_chunks, image.planes))
    if missing:
        console.print(
            f"  Chunks that are not there: {missing}. They count as empty; so they may be, or a copy broke off."
        )
    if differs_in_size(contract, image.pixel_size):
        warn(
            f"a pixel of {image.path.name} measures {image.pixel_size:g} µm, those of the training images "
            f"{contract.pixel_size:g} µm: objects look larger or smaller than the model knows them"
        )


def _say_smaller_tile(old: int, new: int) -> None:
    console.print(f"Tiles of {old} px do not fit the memory: again with {new} px.")


def _say_large(result: "LargePrediction") -> None:
    console.print(f"{count(result.blocks, 'block')} of {result.tile[0]}×{result.tile[1]} px with their context.")
    if result.kept or result.damaged:
        console.print(
            f"  {count(result.kept, 'block')} were done before, and had their checksums; {result.damaged} had not: "
            f"computed again."
        )
    if result.image.zarr_format:
        labels = result.labels / "labels" / "ubend"
        console.print(f"Look at it:\n  [bold]{command('napari --plugin napari-ome-zarr', labels)}[/]", soft_wrap=True)


def _warn_of_sizes(sizes: dict[str, float], trained_on: float | None) -> None:
    """Say that objects look larger or smaller to the model than those it was trained on."""
    low, high = (f"{size:g}" for size in (min(sizes.values()), max(sizes.values())))
    of = low if low == high else f"{low} to {high}"
    warn(
        f"{count(len(sizes), 'image')} with pixels of {of} µm, and the model was trained on pixels of {trained_on:g} "
        f"µm: --resample segments at that size"
    )


def _with_rules(contract: "Contract", asked: dict[str, Any]) -> "Contract":
    """Replace rules for objects by those asked for, and say so."""
    if not asked:
        return contract
    if contract.task.kind != "instances":
        options = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise InputError(f"{options} shape single objects, and this model was trained on {contract.task.kind} labels")
    from ubend.faces.words import rules_in_words

    changed = replace(contract, objects=replace(contract.objects, **asked))
    console.print(f"Objects, as asked for: {rules_in_words(changed)}")
    return changed


def _print_scores(evaluation: "Evaluation", *, every: bool = False) -> None:
    from ubend.faces.score_tables import print_scores

    print_scores(console, evaluation, every=every)


def _first_plane(image: Path) -> Any:
    """Read the pixels of an image file, or of a Zarr, whole: channels first, or as `read_images` gives them."""
    from ubend.data.formats import read_images
    from ubend.data.large import open_large

    if image.is_dir():
        opened = open_large(image)
        return opened.read(opened.planes[0], slice(None), slice(None))
    return read_images(image)[0].pixels


def _of_files(path: Path | None) -> list[Path]:
    """The path, if it is one of a file and not the standard output."""
    return [] if path in (None, STDOUT) else [path]


def _check_free(paths: list[Path], *, overwrite: bool, picture: Path | None = None) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    from ubend.data.formats import existing_folder
    from ubend.data.origin import was_written_here

    for path in paths:
        existing_folder(path.parent)
        if path.exists() and not overwrite:
            raise FileError(f"{path} exists already: name another file, or say --overwrite")
        if path == picture and path.exists() and not was_written_here(path):
            raise FileError(f"{path} is no picture that ubend drew, and is not replaced: name another file")
        if path != picture and path.exists() and path.suffix.lower() not in (".csv", ".json", ".txt"):
            raise FileError(f"{path} is no table and no JSON, and is not replaced: name another file")
    if len(set(paths)) < len(paths):
        raise FileError(f"{paths[0]} cannot be both the table and the JSON: name two files")


def _write_text(path: Path, text: str, *, overwrite: bool) -> None:
    from ubend.data.formats import write_atomically

    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"), overwrite=overwrite)
    console.print(f"Wrote {escape(str(path))}")


def _write_json(values: dict[str, Any], file: Path | None, *, overwrite: bool) -> None:
    """Write what programs read: into a file, on the standard output, or not at all. In ASCII, which no pipe spoils."""
    if file is None:
        return
    text = json.dumps(values, indent=2, allow_nan=False)
    if file == STDOUT:
        typer.echo(text)
    else:
        _write_text(file, f"{text}\n", overwrite=overwrite)


def _tile_in_image(recipe: Any) -> int:
    """Rows and columns of the image that a tile covers, or the next that the network takes."""
    from ubend.method.geometry import nearest_valid_inputs

    network = recipe.network
    size: int = recipe.tiles.size << network.coarse
    if network.padding == "none":
        return nearest_valid_inputs(size, network.depth)[-1]
    step: int = 1 << network.depth
    return -(-size // step) * step


def _print_network(network: Any, size: int) -> None:
    from ubend.method.geometry import halo, receptive_field, smallest_input_for
    from ubend.method.network import count_parameters, layer_table, tiling_cost

    rows = layer_table(network, size)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "in", "out", "kernel", "size", "parameters = out·(in·kh·kw+1)", "MMAC"):
        table.add_column(name, justify="left" if name == "layer" else "right")
    for row in rows:
        bias = "" if network.normalisation == "batch" and row.kernel == 3 else "+1"
        rule = f"{row.outputs}·({row.inputs}·{row.kernel}·{row.kernel}{bias}) = {row.parameters:,}"
        sizes = f"{row.size_in}→{row.size_out}"
        side = f"{row.kernel}×{row.kernel}"
        table.add_row(row.name, str(row.inputs), str(row.outputs), side, sizes, rule, f"{row.macs / 1e6:,.3f}")
    console.print(table)
    macs = sum(row.macs for row in rows)
    if network.normalisation == "batch":
        normalised = sum(2 * row.outputs for row in rows if row.kernel == 3)
        console.print(f"Batch normalisation: {normalised:,} parameters, folded into the convolutions for prediction.")
    console.print(
        f"[bold]{count_parameters(network):,} parameters[/] in {len(rows)} convolutional layers; "
        f"{rows[0].size_in}×{rows[0].size_in} → {rows[-1].size_out}×{rows[-1].size_out}; "
        f"{macs / 1e9:,.3f} GMAC = {2 * macs / 1e9:,.2f} GFLOP forward"
    )
    if network.coarse:
        block = 2**network.coarse
        console.print(f"Before the first layer {block}×{block} pixels are averaged; the scores are interpolated.")
    field = " or ".join(str(width) for width in receptive_field(network.depth))
    step = 2**network.depth
    console.print(
        f"Halo {halo(network.depth)} px a side; receptive field {field} px; unpadded input sizes "
        f"{step}·k + {4 * (step - 1)} with k ≥ 8; tiles are exact at steps of {step} px"
    )
    smallest = smallest_input_for(step, network.depth)
    shares = {tile: tiling_cost(network, tile) for tile in (smallest, *OVERHEADS) if tile >= smallest}
    console.print(
        "Computing in tiles costs, against the padded network on the whole image: "
        + ", ".join(f"{cost:.2f} times at {tile} px" for tile, cost in shares.items())
    )


def _in_one_line(scores: dict[str, float], most: int = 8) -> str:
    """The scores, or of many classes only the means, which come first."""
    shown = list(scores.items())[: most if len(scores) <= most else 2]
    return ", ".join(f"{name} [bold]{_score(value)}[/]" for name, value in shown)


def _score(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"
