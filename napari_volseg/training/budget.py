"""How much of a training is spent: by steps or by time, shared among the stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.stage import Stage
    from napari_volseg.training.run import Run

SCORES = 16
"""How often in a training the held-out voxels are looked at, the end included."""

SCORING_SHARE = 0.1
"""Part of a time budget that looking at held-out voxels may take, the end aside."""


@dataclass(frozen=True)
class Budget:
    """What a training may spend.

    Attributes
    ----------
    steps : int
        Steps in all, or 0 for a training by time.
    seconds : float
        Seconds in all; unused if there are steps.
    shares : tuple of float
        Part of each stage; they add up to 1.
    """

    steps: int
    seconds: float
    shares: tuple[float, ...]

    def stage_fraction(self, run: Run) -> float:
        """Part of the current stage's budget that is spent, 0 to 1."""
        if self.steps:
            # Rounding where stages meet, so that their steps add up to all.
            first, last = (
                round(self.steps * sum(self.shares[:n])) for n in (run.stage, run.stage + 1)
            )
            return min(1.0, run.stage_step / (last - first)) if last > first else 1.0
        # Preparing a stage counts, so a stage gets its share of what is left then.
        left = self.seconds - run.stage_began
        share = self.shares[run.stage] / sum(self.shares[run.stage :])
        return min(1.0, (run.seconds - run.stage_began) / (left * share)) if left > 0 else 1.0

    def ended(self, run: Run) -> bool:
        """Whether the current stage has nothing left to spend."""
        return run.stage < len(self.shares) and self.stage_fraction(run) >= 1

    def fraction(self, run: Run) -> float:
        """Part of the whole budget that is spent, 0 to 1."""
        if run.stage == len(self.shares):
            return 1.0
        if not self.steps:
            return min(1.0, run.seconds / self.seconds)
        before = sum(self.shares[: run.stage])
        return before + self.shares[run.stage] * self.stage_fraction(run)

    def seconds_left(self, run: Run) -> float:
        """Seconds to go; for a training by steps, judged by its pace so far."""
        left = 1 - self.fraction(run)
        if not self.steps:
            return left * self.seconds
        return left * self.steps * run.seconds / run.step if run.step else 0.0

    def score_due(self, run: Run) -> bool:
        """Whether it is time to look at the held-out voxels: regularly, and between stages."""
        between = run.stage_step == 0
        due = between or self.fraction(run) * SCORES >= len(run.scores) + 1
        # What a stage came to is worth taking some of the time before its turn.
        seconds = self.seconds if between else run.seconds
        return due and (self.steps > 0 or run.scoring_seconds <= SCORING_SHARE * seconds)


def plan_budget(config: TrainingConfig, stages: Sequence[Stage[Any]]) -> Budget:
    """Share a training's steps or minutes among its stages."""
    total = sum(stage.share for stage in stages)
    return Budget(config.steps, 60 * config.minutes, tuple(s.share / total for s in stages))
