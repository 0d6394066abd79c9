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

RENEWED = 0.5
"""Part of a time budget that is left, at least, when new labels come in."""

PATIENCE = 4
"""Looks at held-out voxels, a quarter of the time, in which a training has to get better."""

WORTH_WAITING = 0.005
"""Gain of held-out IoU in that time, at least, that is worth it."""

CHANCE = 0.25
"""Of a score's standard error: a gain below it is none. Both scores are of the same voxels, and
differ by far less than those of others would."""

LAST_PART = 0.25
"""What is left when it has not, of what was spent: the learning rate still falls to zero, and
what that brings is not lost."""


@dataclass(frozen=True)
class Budget:
    """What a training may spend.

    Attributes
    ----------
    steps : tuple of int
        Steps of each stage. In a training by time 0 means as many as its time allows,
        and any other number is a limit that may come before its time is up.
    seconds : float
        Seconds in all; 0 for a training by steps.
    shares : tuple of float
        Part of each stage in the time; they add up to 1.
    patient : bool
        Whether it may end earlier, once held-out voxels no longer improve.
    before : int
        Steps that were taken before the stages began anew.
    """

    steps: tuple[int, ...]
    seconds: float
    shares: tuple[float, ...]
    patient: bool = False
    before: int = 0

    def total_seconds(self, run: Run) -> float:
        """Seconds in all, with what was added or taken since; 0 for a training by steps."""
        return self.seconds + run.extended

    def renew(self, run: Run) -> None:
        """Give labels that changed time to be learned: as much as half of the budget, at least.

        The learning rate rises to what it was with as much time left. Steps are taken as many
        as were asked for, whatever happens.
        """
        if self.seconds:
            run.extended += max(0.0, RENEWED * self.seconds - self.seconds_left(run))
            # The next look is not put off until the part that is spent is as large again.
            run.scored = min(run.scored, int(self.fraction(run) * SCORES))

    def settle(self, run: Run, error: float) -> None:
        """Bring the end near if held-out voxels have not improved for some looks.

        Parameters
        ----------
        error : float
            Standard error of the last score.
        """
        # What has a limit of its own ends by itself.
        last = run.stage == max((n for n, steps in enumerate(self.steps) if not steps), default=-1)
        # What earlier stages came to says nothing of a stage that has just begun.
        long_enough = run.seconds - run.stage_began >= self.seconds * PATIENCE / SCORES
        if not (self.patient and last and long_enough) or run.settled:
            return
        spare = self.seconds_left(run) - LAST_PART * run.seconds
        if spare > 0 and no_better(run.scores, error):
            run.settled = True
            run.extended -= spare
            # The part that is spent has grown: no looks are owed for that.
            run.scored = max(run.scored, int(self.fraction(run) * SCORES))

    def stage_fraction(self, run: Run) -> float:
        """Part of the current stage's budget that is spent, 0 to 1."""
        steps = self.steps[run.stage]
        by_steps = run.stage_step / steps if steps else 0.0
        if not self.seconds:
            return min(1.0, by_steps) if steps else 1.0
        # Preparing a stage counts, so a stage gets its share of what is left then; but one of
        # few steps its share of all: without them, its preparation would have been for nothing.
        given = self.total_seconds(run) * self.shares[run.stage]
        if not steps:
            left = self.total_seconds(run) - run.stage_began
            given = left * self.shares[run.stage] / sum(self.shares[run.stage :])
        by_time = (run.seconds - run.stage_began) / given if given > 0 else 1.0
        return min(1.0, max(by_steps, by_time))

    def ended(self, run: Run) -> bool:
        """Whether the current stage has nothing left to spend."""
        return run.stage < len(self.shares) and self.stage_fraction(run) >= 1

    def fraction(self, run: Run) -> float:
        """Part of the whole budget that is spent, 0 to 1."""
        if run.stage == len(self.shares):
            return 1.0
        if self.seconds:
            return min(1.0, run.seconds / self.total_seconds(run))
        done = self.before + sum(self.steps[: run.stage]) + run.stage_step
        return done / (self.before + sum(self.steps))

    def seconds_left(self, run: Run) -> float:
        """Seconds to go; for a training by steps, judged by its pace so far."""
        left = 1 - self.fraction(run)
        if self.seconds:
            return left * self.total_seconds(run)
        steps = self.before + sum(self.steps)
        return left * steps * run.seconds / run.step if run.step else 0.0

    def score_due(self, run: Run) -> bool:
        """Whether it is time to look at the held-out voxels: regularly, and between stages."""
        if not self.seconds:
            return run.stage_step == 0 or self._behind(run)
        if run.stage_step == 0:
            # What a stage came to is worth taking some of the time before its turn.
            return run.scoring_seconds <= SCORING_SHARE * self.seconds
        # A stage that needs few steps is not held up.
        limited = self.steps[run.stage] > 0
        return (
            not limited and self._behind(run) and run.scoring_seconds <= SCORING_SHARE * run.seconds
        )

    def _behind(self, run: Run) -> bool:
        return self.fraction(run) * SCORES >= run.scored + 1


def no_better(scores: Sequence[float], error: float) -> bool:
    """Whether the last scores are no better than those before, by as much as counts.

    As long as nothing of the foreground is found (score 0), patience lasts: such scores tell
    nothing of what is being learned.
    """
    before, recent = scores[:-PATIENCE], scores[-PATIENCE:]
    if not before or max(recent) == 0:
        return False
    return max(recent) <= max(before) + max(WORTH_WAITING, CHANCE * error)


def plan_budget(config: TrainingConfig, stages: Sequence[Stage[Any]], before: int = 0) -> Budget:
    """Share a training's steps, less those taken before, or its minutes among its stages."""
    total = sum(stage.share for stage in stages)
    shares = tuple(stage.share / total for stage in stages)
    if not config.steps:
        steps_of = tuple(stage.most_steps for stage in stages)
        return Budget(steps_of, 60 * config.minutes, shares, config.until_no_better)
    steps: list[int] = []
    for n, stage in enumerate(stages):
        # What one stage leaves, by rounding or by its limit, the next ones share.
        own = round((config.steps - before - sum(steps)) * shares[n] / sum(shares[n:]))
        steps.append(min(own, stage.most_steps or own))
    return Budget(tuple(steps), 0.0, shares, before=before)
