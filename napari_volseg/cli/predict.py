"""The work of ``napari-volseg predict``: where its outputs go, and one image after another."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.cli.terminal import check_output, naming, progress, say
from napari_volseg.data.annotation import count_labels
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import (
    SUFFIXES,
    is_zarr,
    read_volume,
    write_labels,
    write_probabilities,
    write_volume,
)
from napari_volseg.data.ome_zarr import do_all, is_label
from napari_volseg.data.unfinished import begin, finish
from napari_volseg.inference.distributed import Cluster, predict_on_cluster, share_on_cluster
from napari_volseg.inference.predict import check_channels, label_table, prepare
from napari_volseg.inference.streamed import chunk_shape, identify, write_missing, write_tiles
from napari_volseg.review.uncertainty import normalized_entropy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.unfinished import Unfinished
    from napari_volseg.inference.predict import PredictedRegion, Predictor
    from napari_volseg.inference.streamed import Values
    from napari_volseg.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Job:
    """One image to predict, and where its results go; None is not wanted."""

    image: Path
    labels: Path
    probabilities: Path | None
    uncertainty: Path | None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that it writes."""
        wanted = (self.labels, self.probabilities, self.uncertainty)
        return tuple(path for path in wanted if path is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        return {name: path and str(path) for name, path in asdict(self).items()}


def plan_jobs(
    images: Sequence[Path], labels: Path, probabilities: Path | None, uncertainty: Path | None
) -> list[Job]:
    """Name every output, and make sure that it can be written.

    For a single image an output is a file, or a folder that exists; for several it is a
    folder, made if it is missing, in which the files are called as the images, with
    ``_labels``, ``_probabilities`` or ``_uncertainty`` before the suffix.

    Raises
    ------
    InputError
        If an output cannot be written, or would be written twice.
    """
    if not images:
        raise InputError("no image to predict; give MODEL IMAGE [IMAGE ...]")
    folders = {
        output: _is_folder(output, len(images))
        for output in (labels, probabilities, uncertainty)
        if output is not None
    }

    def place(output: Path, image: Path, what: str) -> Path:
        if not folders[output]:
            return output
        # A group inside an OME-Zarr has no suffix of its own.
        suffix = _suffix(image)
        name = image.name[: len(image.name) - len(suffix)]
        return output / f"{name}_{what}{suffix or '.ome.zarr'}"

    jobs = [
        Job(
            image=image,
            labels=place(labels, image, "labels"),
            probabilities=probabilities and place(probabilities, image, "probabilities"),
            uncertainty=uncertainty and place(uncertainty, image, "uncertainty"),
        )
        for image in images
    ]
    outputs = [output for job in jobs for output in job.outputs]
    if twice := {output for output in outputs if outputs.count(output) > 1}:
        raise InputError(f"{min(twice)}: would be written twice; give the outputs other names")
    for output, is_folder in folders.items():
        if is_folder and not output.is_dir():
            check_output(output)
            output.mkdir()
    for output in outputs:
        if is_label(output):
            check_output(output.parent)  # made with the first of an image's labels
        else:
            check_output(output, images)
    return jobs


def _suffix(path: Path) -> str:
    """Return the suffix that decides on the format, as it is written, or ""."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[len(path.name) - len(suffix) :]


def _is_folder(output: Path, images: int) -> bool:
    """Whether an output is a folder to write into, rather than a file."""
    if is_zarr(output) or _suffix(output):
        if images > 1:
            raise InputError(f"{output}: {images} images need a folder to write into, not a file")
        return False
    if output.is_dir() or (images > 1 and not output.exists()):
        return True
    raise InputError(
        f"{output}: no folder, and no file of a known format; end the name with one of "
        f"{', '.join(SUFFIXES)}"
    )


def check_image(image: Path, checkpoint: Checkpoint) -> None:
    """Refuse, before any is predicted, an image that the model cannot read.

    Raises
    ------
    InputError
        If it cannot be opened, or its channels are not those of the model.
    """
    with naming(image):
        check_channels(checkpoint, read_volume(image))


def choose_cluster(
    address: str, model: Path, device: str, flips: bool, jobs: Sequence[Job]
) -> Cluster:
    """Refuse outputs that many processes cannot write to at once.

    Raises
    ------
    InputError
        If one is not OME-Zarr.
    """
    for output in (output for job in jobs for output in job.outputs):
        if not is_zarr(output):
            raise InputError(
                f"{output}: only an OME-Zarr can be written by many workers; end the name with "
                ".ome.zarr"
            )
    return Cluster(address, model, device, flips)


def run_job(
    job: Job,
    checkpoint: Checkpoint,
    device: str,
    cluster: Cluster | None = None,
    *,
    flips: bool = False,
) -> dict[int, int]:
    """Predict an image and write what is wanted.

    OME-Zarr is written region by region, and a prediction that was killed goes on where it
    was; other formats are written once all of it is there.

    Returns
    -------
    dict of class id to number of voxels
    """
    predictor = prepare(checkpoint, read_volume(job.image), device, flips)
    if all(map(is_zarr, job.outputs)):
        counts = write_chunks(job, predictor, cluster)
    else:
        counts = write_files(job, predictor)
    return {i: counts.get(i, 0) for i in checkpoint.class_ids}


def write_files(job: Job, predictor: Predictor) -> Counter[int]:
    """Predict in memory and write files; return the number of voxels of each label."""
    checkpoint, volume = predictor.checkpoint, predictor.volume

    def room_for(channels: int) -> NDArray[np.float32]:
        return np.zeros((channels, *volume.shape), dtype=np.float32)

    labels = np.zeros(volume.shape, dtype=label_table(checkpoint.class_ids).dtype)
    outputs: list[tuple[NDArray[Any], Values]] = [(labels, labels_of)]
    if job.probabilities is not None:
        outputs.append((probabilities := room_for(len(checkpoint.classes)), probabilities_of))
    if job.uncertainty is not None:
        outputs.append((uncertainty := room_for(1), entropy_of))
    with progress(job.image.name) as report:
        for piece in write_tiles(predictor, outputs, predictor.tiles):
            report(piece.done / piece.total, f"region {piece.done} of {piece.total}")
    if job.probabilities is not None:
        write_probabilities(job.probabilities, probabilities, volume, checkpoint.classes)
    if job.uncertainty is not None:
        entropy = replace(volume, image=uncertainty, channel_names=("uncertainty",))
        write_volume(job.uncertainty, entropy)
    write_labels(job.labels, labels, volume, checkpoint.classes)
    return Counter(count_labels(labels))


def write_chunks(job: Job, predictor: Predictor, cluster: Cluster | None) -> Counter[int]:
    """Predict region by region into OME-Zarr; return the number of voxels of each label.

    Parameters
    ----------
    cluster : Cluster or None
        Whose workers predict instead of this process.
    """
    checkpoint, volume = predictor.checkpoint, predictor.volume
    open_output = partial(
        begin, volume=volume, chunks=chunk_shape(predictor), belongs_to=identify(predictor)
    )
    dtype = label_table(checkpoint.class_ids).dtype
    labels = open_output(job.labels, dtype=dtype, classes=checkpoint.classes)
    outputs: list[tuple[Unfinished, Values]] = [(labels, labels_of)]
    if job.probabilities is not None:
        names = tuple(c.name for c in checkpoint.classes)
        room = open_output(job.probabilities, dtype=np.float32, channel_names=names)
        outputs.append((room, probabilities_of))
    if job.uncertainty is not None:
        room = open_output(job.uncertainty, dtype=np.float32, channel_names=("uncertainty",))
        outputs.append((room, entropy_of))
    total, counts, done = len(predictor.tiles), Counter[int](), 0
    if cluster is None:
        written = write_missing(predictor, outputs, predictor.tiles)
    else:
        places = [(o.path, values) for o, values in outputs]
        written = predict_on_cluster(cluster, job.image, places, total, predictor.intensity)
    with progress(job.image.name) as report:
        for found in written:
            if cluster is None and 0 < found.there < total:
                say(f"{job.labels}: going on, {found.there} of {total} regions are done")
            done += found.regions
            counts.update(found.voxels)
            report(done / total, f"region {done} of {total}")
    for unfinished, _ in outputs:
        finish(unfinished, do_all if cluster is None else share_on_cluster(cluster))
    return counts


def labels_of(piece: PredictedRegion) -> NDArray[np.integer]:
    """Take the labels (z, y, x) of a finished region."""
    return piece.labels


def probabilities_of(piece: PredictedRegion) -> NDArray[np.float32]:
    """Take the class probabilities (K, z, y, x) of a finished region."""
    return piece.probabilities


def entropy_of(piece: PredictedRegion) -> NDArray[np.float32]:
    """Return the normalized entropy (z, y, x) of a finished region."""
    return normalized_entropy(piece.probabilities)
