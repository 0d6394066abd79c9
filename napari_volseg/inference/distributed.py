"""Prediction by many machines: a Dask cluster whose workers share regions of one volume.

Workers read the model and the image and write the results themselves, so both must lie
where all of them see it. Each loads the network once. What a lost worker had not
finished is given to others; a region written twice is written alike.
"""

from __future__ import annotations

import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import dask

from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_volume
from napari_volseg.data.unfinished import reopen
from napari_volseg.inference.predict import Predictor, prepare
from napari_volseg.inference.streamed import Values, Written, write_missing
from napari_volseg.models.checkpoint import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from distributed import Client

    from napari_volseg.data.intensity import Intensity
    from napari_volseg.data.ome_zarr import Share

CONNECT_SECONDS = 10

MOST_TASKS = 20_000
"""A scheduler keeps every task in memory and hands out a few thousand a second: regions of
larger volumes are given out in batches."""


@dataclass(frozen=True)
class Cluster:
    """Who predicts, and with what.

    Attributes
    ----------
    address : str
        Of the scheduler, as "tcp://host:8786".
    model : Path
        Of the model, as every worker sees it.
    device : str
        Where each worker computes: "auto", "cpu", "cuda", ...
    flips : bool
        Whether each region is the mean over eight mirrored images.
    """

    address: str
    model: Path
    device: str = "auto"
    flips: bool = False


def predict_on_cluster(
    cluster: Cluster,
    image: Path,
    outputs: Sequence[tuple[Path, Values]],
    regions: int,
    intensity: Intensity,
) -> Iterator[Written]:
    """Predict an image on a cluster, but for the regions that are on disk already.

    Parameters
    ----------
    cluster : Cluster
    image : Path
        As every worker sees it.
    outputs : sequence of (Path, callable)
        What has been begun (``data.unfinished``); the labels are the first.
    regions : int
        How many the image has. They are not sent: each worker finds its own by their numbers.
    intensity : Intensity
        Of the image, measured once: a thousand workers would all read it for that.

    Yields
    ------
    Written
        In any order.

    Raises
    ------
    InputError
        If Dask's scheduler is not installed, or does not answer at the address.
    """
    with _connected(cluster.address) as client:
        from distributed import as_completed

        tasks = client.map(
            _predict_batch,
            *_batches(regions),
            model=cluster.model.resolve(),
            image=image.resolve(),
            outputs=[(path.resolve(), values) for path, values in outputs],
            device=cluster.device,
            flips=cluster.flips,
            intensity=intensity,
            key_of_predictor=uuid.uuid4().hex,
            pure=False,
        )
        for task in as_completed(tasks):  # type: ignore[no-untyped-call]
            yield task.result()


def share_on_cluster(cluster: Cluster) -> Share:
    """Return what lets the workers of a cluster do work that is counted in pieces.

    Raises
    ------
    InputError
        When it is called, as ``predict_on_cluster``.
    """

    def share(work: Callable[[int, int], None], pieces: int) -> None:
        with _connected(cluster.address) as client:
            tasks = client.map(work, *_batches(pieces), pure=False)
            client.gather(tasks)  # type: ignore[no-untyped-call]

    return share


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            '--dask needs the package distributed: pip install "napari-volseg[distributed]"'
        ) from error
    try:
        client = Client(address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address}; start one with `dask scheduler`, and "
            "workers with `dask worker ADDRESS`"
        ) from error
    with client:
        yield client


def _batches(pieces: int) -> tuple[list[int], list[int]]:
    """Return where batches of some pieces start, and where they stop."""
    starts = range(0, pieces, -(-pieces // MOST_TASKS))
    return list(starts), [min(start + starts.step, pieces) for start in starts]


def _predict_batch(
    start: int,
    stop: int,
    model: Path,
    image: Path,
    outputs: Sequence[tuple[Path, Values]],
    device: str,
    flips: bool,
    intensity: Intensity,
    key_of_predictor: str,
) -> Written:
    """Predict and write some regions, on a worker."""
    opened = [(reopen(path), values) for path, values in outputs]
    predictor = _predictor(model, image, device, flips, intensity, key_of_predictor)
    # On a worker, reading chunks of an image would become tasks of the cluster's by default, and
    # the worker would begin the next region while this one waits for them.
    with dask.config.set(scheduler="synchronous"):
        found = [*write_missing(predictor, opened, predictor.tiles[start:stop])]
    voxels = sum((one.voxels for one in found), Counter[int]())
    return Written(sum(one.regions for one in found), sum(one.there for one in found), voxels)


@lru_cache(maxsize=1)
def _predictor(
    model: Path, image: Path, device: str, flips: bool, intensity: Intensity, key: str
) -> Predictor:
    """Load what a worker predicts with, once for each call of ``predict_on_cluster``."""
    return prepare(load_model(model), read_volume(image), device, flips, intensity)
