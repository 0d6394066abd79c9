"""What can be said on the command line, and how it answers.

The work of each command is in the module of its name, imported only when it is asked for:
those load torch and the file formats, and ``--help`` or a mistyped option answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import App, Parameter

from napari_volseg import __version__
from napari_volseg.cli.masks import compare, surfaces
from napari_volseg.cli.options import Json, ObjectOptions, Output, TrainingOptions, Unlabeled
from napari_volseg.cli.terminal import check_display, check_output, print_json, say, silence_if
from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.errors import InputError

BAD_INPUT = 2
INTERRUPTED = 130

app = App(
    name="napari-volseg",
    help="Paint a few slices of a 3D image, get the whole volume segmented.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
app.command(compare)
app.command(surfaces)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    try:
        code: int = app(
            arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_int_as_exit_code_else_zero",
        )
    except cyclopts.CycloptsError as error:
        return _refuse(f"{error} See napari-volseg --help.")
    except InputError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.strerror is None:
            raise  # It is not the system that speaks.
        return _refuse(": ".join(str(part) for part in (error.filename, error.strerror) if part))
    except KeyboardInterrupt:
        say("stopped; what was not finished is not written")
        return INTERRUPTED
    return code


def _refuse(message: str) -> int:
    say(f"napari-volseg: {' '.join(message.split())}")
    return BAD_INPUT


@app.default
def launch(*files: Path) -> None:
    """Open napari with the dock, and the files given.

    Parameters
    ----------
    files
        Images, and annotations to go on with.
    """
    for file in files:
        if not file.exists():
            raise InputError(f"{file}: no such file, and no such command. See napari-volseg --help")
    check_display()
    from napari_volseg.widgets.app import launch as open_window

    open_window(files)


@app.command
def demo(
    *,
    headless: Annotated[bool, Parameter(negative=())] = False,
    minutes: float = 1.0,
    output: Output = Path("napari-volseg-demo"),
    as_json: Json = False,
) -> None:
    """Make a sample, annotate a few slices of it, train, predict.

    Opens the window on the annotated sample; with --headless goes through all of it, leaves
    the files and a picture, and prints the intersection over union with the truth.

    Parameters
    ----------
    headless
        Open no window.
    minutes
        Minutes to train (with --headless).
    output
        Folder for the files (with --headless).
    as_json
        Print one JSON document (with --headless).
    """
    if not headless:
        check_display()
        from napari_volseg.widgets.app import launch_demo

        launch_demo()
        return
    if not minutes > 0:
        raise InputError(f"--minutes is {minutes}; give a positive number")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is not a folder; give one with -o")
    check_output(output / "demo.png" if output.exists() else output)
    from napari_volseg.cli.demo import run_demo

    result = run_demo(output, minutes)
    if as_json:
        print_json(result.to_json())
    else:
        print(result)


@app.command
def models(*, as_json: Json = False) -> None:
    """List every architecture: name, paper, parameters of its paper's configuration.

    Parameters
    ----------
    as_json
        Print one JSON document.
    """
    from napari_volseg.cli.models import describe_models, table

    rows = describe_models()
    if as_json:
        print_json(rows)
    else:
        print(table(rows))


@app.command
def train(
    *files: Path,
    output: Output,
    options: Annotated[TrainingOptions | None, Parameter(name="*")] = None,
    unlabeled: Unlabeled = UNLABELED,
    proposals: Path | None = None,
    resume: Path | None = None,
    as_json: Json = False,
) -> int:
    """Train a network on one or many partly labeled images, and save it.

    Ctrl-C stops it and saves what there is. On several GPUs of one machine:
    torchrun --nproc-per-node=gpu -m napari_volseg train ...

    Parameters
    ----------
    files
        IMAGE ANNOTATION [IMAGE ANNOTATION ...]: each image is followed by its labels.
    output
        Model file to write.
    unlabeled
        Label that means unlabeled in the annotations, or "none". If it is not 0, and 0 is a
        class, all classes move up by one.
    proposals
        Labels that nobody painted, to learn from with less weight (--proposal-weight) where
        nothing is painted; with one image only.
    resume
        Model to go on from; its options are the defaults. A training that was stopped is
        finished; with other options or annotations, a new one starts from its weights.
    as_json
        Print one JSON document.
    """
    check_output(output, files)
    from napari_volseg.cli.train import read_cases, read_start, run_training
    from napari_volseg.training.processes import processes_joined

    checkpoint, config = read_start(resume, options or {})
    cases = read_cases(files, unlabeled, proposals)
    with processes_joined() as number, silence_if(number > 0):
        trained = run_training(cases, config, checkpoint, output)
    if number > 0:
        return 0
    if as_json:
        print_json(trained.to_json())
    else:
        print(trained)
    return INTERRUPTED if trained.interrupted else 0


@app.command
def predict(
    model: Path,
    /,
    *images: Path,
    output: Output,
    probabilities: Path | None = None,
    uncertainty: Path | None = None,
    flips: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    dask: str = "",
    as_json: Json = False,
) -> None:
    """Segment images with a trained model; the labels get the geometry of the image.

    An OME-Zarr may be larger than memory: it is written region by region, and a prediction
    that was killed goes on where it was. With -o IMAGE.ome.zarr/labels/NAME the labels
    are stored inside the image.

    Parameters
    ----------
    model
        Model file that train wrote.
    images
        One or many images like those it was trained on.
    output
        File for the labels; for several images, a folder.
    probabilities
        File or folder for the probability of each class.
    uncertainty
        File or folder for the entropy of the probabilities: 0 is sure, 1 a mere guess.
    flips
        Take the mean over eight mirrored images, which takes eight times as long.
    device
        Where to compute: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "mps".
    dask
        Address of a Dask scheduler whose workers predict; they must see the same files.
    as_json
        Print one JSON document.
    """
    from napari_volseg.cli.predict import check_image, choose_cluster, plan_jobs, run_job
    from napari_volseg.models.checkpoint import load_model

    checkpoint = load_model(model)
    for image in images:
        check_image(image, checkpoint)
    jobs = plan_jobs(images, output, probabilities, uncertainty)
    cluster = choose_cluster(dask, model, device, flips, jobs) if dask else None
    voxels = [run_job(job, checkpoint, device, cluster, flips=flips) for job in jobs]
    if as_json:
        print_json([{**j.to_json(), "voxels": v} for j, v in zip(jobs, voxels, strict=True)])
    else:
        print("\n".join(str(job.labels) for job in jobs))


@app.command
def evaluate(
    prediction: Path,
    truth: Path,
    /,
    *,
    annotation: Path | None = None,
    unlabeled: Unlabeled | None = None,
    annotation_unlabeled: Unlabeled = UNLABELED,
    as_json: Json = False,
) -> None:
    """Compare a prediction with the truth: overlaps, and distances in physical units.

    Parameters
    ----------
    prediction
        Labels of every voxel; 1 is the background.
    truth
        Labels of the same volume; voxels that are unlabeled in it do not count.
    annotation
        Labels that were painted: only voxels that are unlabeled in it count.
    unlabeled
        Label that means unlabeled in the truth (0), or "none" if every voxel is labeled. If
        it is not 0, and 0 is a class, all classes move up by one.
    annotation_unlabeled
        The same, for the annotation.
    as_json
        Print one JSON document.
    """
    from napari_volseg.cli.evaluate import compare

    comparison = compare(prediction, truth, unlabeled, annotation, annotation_unlabeled)
    if as_json:
        print_json(comparison.to_json())
    else:
        print(comparison)


@app.command
def suggest(
    model: Path,
    image: Path,
    /,
    *,
    annotation: Path | None = None,
    unlabeled: Unlabeled = UNLABELED,
    number: Annotated[int, Parameter(name=["--number", "-n"])] = 5,
    device: str = "auto",
    as_json: Json = False,
) -> None:
    """Say which slices to paint next: those that should teach the model most, best first.

    Predicts the image, and looks for where the model is in doubt and little is painted. Each
    slice has a view and an index from 0 (with --json also the axis: 0 is z, 1 is y, 2 is x),
    and a score: the part of the doubt that painting it should settle, over the effort.

    Parameters
    ----------
    model
        Model file that train wrote.
    image
        An image like those it was trained on.
    annotation
        What is painted of the image.
    unlabeled
        Label that means unlabeled in the annotation, or "none". If it is not 0, and 0 is a
        class, all classes move up by one.
    number
        Slices wanted.
    device
        Where to compute: "auto" (CUDA, else MPS, else CPU), "cpu", "cuda", "mps".
    as_json
        Print one JSON document.
    """
    if number < 1:
        raise InputError(f"-n is {number}; ask for 1 or more slices")
    from napari_volseg.cli.suggest import suggest_slices, table, to_json

    slices = suggest_slices(model, image, annotation, unlabeled, number, device)
    if as_json:
        print_json(to_json(slices))
    else:
        print(table(slices))


@app.command
def classify_objects(
    image: Path,
    mask: Path,
    examples: Path,
    /,
    *,
    output: Output,
    table: Path | None = None,
    unlabeled: Unlabeled = UNLABELED,
    smallest: int = 8,
    options: Annotated[ObjectOptions | None, Parameter(name="*")] = None,
    as_json: Json = False,
) -> None:
    """Give every object of a mask a class, learned from a few examples.

    Parameters
    ----------
    image
        The image that was segmented.
    mask
        Its labels. Every connected region of one label is an object, except of 1, the
        background. Labels of instances will do.
    examples
        CSV with the column class, any text, and either the columns z, y, x (a voxel in the
        object, counted from 0) or object (a number from the table of an earlier run).
    output
        File for the labels: the class of each object, from 2, in the order of their names.
    table
        CSV file for a row for each object: class, probability, voxels, center.
    unlabeled
        Label that means unlabeled in the mask, or "none". If it is not 0, and 0 is a class, all
        classes move up by one: say none for a mask whose background is 0.
    smallest
        Voxels of the smallest object; what is smaller is left out.
    as_json
        Print one JSON document.
    """
    files = (image, mask, examples)
    check_output(output, files)
    if table is not None:
        check_output(table, (image, mask))
        if table == output:
            raise InputError(f"{table}: would be written twice; give the outputs other names")
    from napari_volseg.cli.classify_objects import classify_files
    from napari_volseg.sparse.object_config import ObjectConfig

    config = ObjectConfig(**options or {})
    result = classify_files(files, unlabeled, smallest, config, output, table)
    if as_json:
        print_json({"labels": str(output), "objects": result.table()})
    else:
        print(result)
