"""One phase of training: how it samples, its loss, which parameters move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.looks import Look

M = TypeVar("M", bound=nn.Module)

IGNORE = -1


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step sees.

    Attributes
    ----------
    image : float32 (B, C, Z, Y, X)
        Standardized gray values.
    target : int64 (B, Z, Y, X)
        Class index from 0 (the label minus one); ``IGNORE`` where nothing is labeled.
    """

    image: Tensor
    target: Tensor


def all_parameters(module: nn.Module) -> Iterable[nn.Parameter]:
    """Every parameter of the module: the choice of most stages."""
    return module.parameters()


def warmup_cosine(fraction: float, scores: list[float]) -> float:
    """Learning-rate factor: linear warm-up over the first 5%, then a cosine to zero."""
    if fraction < 0.05:
        return (fraction + 1e-3) / 0.051
    return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * (fraction - 0.05) / 0.95))))


def constant_rate(fraction: float, scores: list[float]) -> float:
    """Learning-rate factor 1 throughout."""
    return 1.0


def plateau(fraction: float, scores: list[float]) -> float:
    """Learning-rate factor: halved after 3 scores without improvement, 0 after 5.

    As Angermann and Haltmeier (2022, section 4) have it for epochs and the validation
    loss. As long as nothing of the foreground is found (score 0), patience lasts: such
    scores tell nothing of the loss.
    """
    best, factor, since_best, since_change = 0.0, 1.0, 0, 0
    for score in scores:
        if score > best or best == 0:
            best, since_best, since_change = score, 0, 0
            continue
        since_best, since_change = since_best + 1, since_change + 1
        if since_best == 5:
            return 0.0
        if since_change == 3:
            factor, since_change = factor / 2, 0
    return factor


def schedule_of(training: TrainingConfig) -> Callable[[float, list[float]], float]:
    """Return the schedule that goes with the optimizer that the user chose."""
    return warmup_cosine if training.optimizer == "adamw" else constant_rate


def nothing_to_prepare(module: nn.Module) -> Iterator[float]:
    """Do nothing: most stages compute nothing ahead."""
    return iter(())


@dataclass(frozen=True, eq=False)
class Stage(Generic[M]):
    """What one phase of training does to a module of type M.

    Attributes
    ----------
    name : str
        Shown to the user.
    sample : callable (generator) -> batch
        Draws what a step sees; whatever it returns is handed to ``loss``. All
        randomness comes from the given CPU generator, so that a resumed training
        repeats an uninterrupted one.
    loss : callable (module, batch, step) -> scalar tensor
        Forward pass and loss; ``step`` counts within the stage.
    parameters : callable (module) -> parameters
        Which parameters move; all others are frozen.
    optimizer : callable (parameters) -> torch optimizer
        Built when the stage starts.
    schedule : callable (fraction, scores) -> float
        Factor on the learning rate, from the fraction of the stage's budget that is
        spent and the held-out scores so far; 0 after the start ends the stage.
    share : float
        Part of the budget, relative to the other stages.
    most_steps : int
        Steps after which it ends though its share is not spent; 0 for no limit. What is
        left goes to the next stages.
    prepare : callable (module) -> iterator of float
        Run through when the stage starts or is resumed, for what it computes once with
        the weights that earlier stages left; yields the part that is done, 0 to 1.
    instant : bool
        Whether its parameters alone give an answer, long before a network beside them does.
    look : callable (module, most_read) -> iterator of Look, or None
        What is said of held-out voxels, reading so many voxels of volumes at most, where a stage
        knows it for less than their prediction takes.
    """

    name: str
    sample: Callable[[torch.Generator], Any]
    loss: Callable[[M, Any, int], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    parameters: Callable[[M], Iterable[nn.Parameter]] = all_parameters
    schedule: Callable[[float, list[float]], float] = warmup_cosine
    share: float = 1.0
    most_steps: int = 0
    prepare: Callable[[M], Iterator[float]] = nothing_to_prepare
    instant: bool = False
    look: Callable[[M, int], Iterator[Look]] | None = None
