"""Prediction by many machines: a Dask cluster whose workers share regions of one volume.

Workers read the model and the image and write the results themselves, so both must lie
where all of them see it. Each loads the network once. What a lost worker had not
finished is given to others; a region written twice is written alike.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import dask

from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_volume
from napari_volseg.data.unfinished import reopen
from napari_volseg.inference.predict import Predictor, prepare
from napari_volseg.inference.streamed import Values, write_tiles
from napari_volseg.models.checkpoint import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_volseg.data.intensity import Intensity
    from napari_volseg.data.tiles import Tile

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
    tiles: Sequence[Tile],
    intensity: Intensity,
) -> Iterator[tuple[int, int]]:
    """Predict tiles of an image on a cluster.

    Parameters
    ----------
    cluster : Cluster
    image : Path
        As every worker sees it.
    outputs : sequence of (Path, callable)
        What has been begun (``data.unfinished``); the labels are the first.
    tiles : sequence of Tile
    intensity : Intensity
        Of the image, measured once: a thousand workers would all read it for that.

    Yields
    ------
    regions done, regions in all

    Raises
    ------
    InputError
        If Dask's scheduler is not installed, or does not answer at the address.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise InputError(
            '--dask needs the package distributed: pip install "napari-volseg[distributed]"'
        ) from error
    size = -(-len(tiles) // MOST_TASKS)
    batches = [tiles[start : start + size] for start in range(0, len(tiles), size)]
    try:
        client = Client(cluster.address, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {cluster.address}; start one with `dask scheduler`, and "
            "workers with `dask worker ADDRESS`"
        ) from error
    with client:
        tasks = client.map(
            _predict_batch,
            batches,
            model=cluster.model.resolve(),
            image=image.resolve(),
            outputs=[(path.resolve(), values) for path, values in outputs],
            device=cluster.device,
            flips=cluster.flips,
            intensity=intensity,
            key_of_predictor=uuid.uuid4().hex,
            pure=False,
        )
        done = 0
        for task in as_completed(tasks):  # type: ignore[no-untyped-call]
            done += task.result()
            yield done, len(tiles)


def _predict_batch(
    batch: Sequence[Tile],
    model: Path,
    image: Path,
    outputs: Sequence[tuple[Path, Values]],
    device: str,
    flips: bool,
    intensity: Intensity,
    key_of_predictor: str,
) -> int:
    """Predict and write some tiles, on a worker; return how many."""
    opened = [(reopen(path).array, values) for path, values in outputs]
    predictor = _predictor(model, image, device, flips, intensity, key_of_predictor)
    # On a worker, reading chunks of an image would become tasks of the cluster's by default, and
    # the worker would begin the next region while this one waits for them.
    with dask.config.set(scheduler="synchronous"):
        for _ in write_tiles(predictor, opened, batch):
            pass
    return len(batch)


@lru_cache(maxsize=1)
def _predictor(
    model: Path, image: Path, device: str, flips: bool, intensity: Intensity, key: str
) -> Predictor:
    """Load what a worker predicts with, once for each call of ``predict_on_cluster``."""
    return prepare(load_model(model), read_volume(image), device, flips, intensity)
