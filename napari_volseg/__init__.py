"""Paint a few slices of a 3D image, get the whole volume segmented.

The names below are imported on first use, so that ``import napari_volseg`` stays cheap:
it loads neither torch nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Annotation, Case
    from napari_volseg.data.files import read_annotation, read_volume, write_labels
    from napari_volseg.data.volume import Volume
    from napari_volseg.inference.predict import predict, predict_volume
    from napari_volseg.models.checkpoint import load_model, save_model
    from napari_volseg.review.metrics import evaluate
    from napari_volseg.review.suggest import Suggestion, suggest
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.training.loop import train

__version__ = "0.1.0"

_HOME = {
    "Annotation": "data.annotation",
    "Case": "data.annotation",
    "read_annotation": "data.files",
    "read_volume": "data.files",
    "write_labels": "data.files",
    "Volume": "data.volume",
    "predict": "inference.predict",
    "predict_volume": "inference.predict",
    "load_model": "models.checkpoint",
    "save_model": "models.checkpoint",
    "evaluate": "review.metrics",
    "Suggestion": "review.suggest",
    "suggest": "review.suggest",
    "TrainingConfig": "sparse.config",
    "train": "training.loop",
}

__all__ = [
    "Annotation",
    "Case",
    "Suggestion",
    "TrainingConfig",
    "Volume",
    "evaluate",
    "load_model",
    "predict",
    "predict_volume",
    "read_annotation",
    "read_volume",
    "save_model",
    "suggest",
    "train",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
