"""What a training adds to its network: our step, MONAI's and the bare one, taken in turns.

    python benchmarks/training_step.py [--minutes 2] [--no-peer] [--json FILE]

The kidney phantom, (2, 2, 1) slices, the network that `auto` chooses. Ours is the training as
it runs: draw patches, augment, forward, loss, backward, update, average the weights, tell. The
bare step is forward, loss, backward and update of the same network on one of our batches, kept.
MONAI's is the same network fed by its transforms (crops by class, elastic deformation with our
probability, gray values) through its threaded loader, with its DiceCELoss. Rows are milliseconds
at the median and what a step takes over the bare one of the same turn, at the median; "whole
stage" counts also the looks at held-out voxels, that is all the time of the stage that trains
the network. Memory is the resident memory of a process that does that alone, at most, and what
the process holds before its first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from alone import memory_alone, print_memory
from monai.data import CacheDataset, ThreadDataLoader
from monai.losses import DiceCELoss
from monai.transforms import (
    AddCoordinateChannelsd,
    ClassesToIndicesd,
    Compose,
    EnsureTyped,
    Rand3DElasticd,
    RandCropByLabelClassesd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from volumes import annotated, known_volume

from napari_volseg import TrainingConfig, train
from napari_volseg.data.annotation import Case
from napari_volseg.inference.device import describe_device
from napari_volseg.models.registry import get_architecture
from napari_volseg.sparse.pool import Pool, build_pool
from napari_volseg.training.loop import begin_stage
from napari_volseg.training.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

KEPT_BATCHES = 8
STEPS_ALONE = 4
NAMES = ("ours", "bare", "monai")


class Setting:
    """The same case, network and stage for all."""

    def __init__(self, training: TrainingConfig) -> None:
        volume, truth = known_volume(None, "phantom")
        self.case = Case(volume, annotated(truth, "2_2_1"))
        self.training = training
        self.device = torch.device("cpu")
        self.pool: Pool = build_pool([self.case], self.training, self.device)
        self.architecture = get_architecture(self.training.model)
        self.config = self.architecture.configure(self.training, [self.case], self.device)
        stages = self.architecture.stages(self.config, self.training, self.pool)
        self.stage = next(stage for stage in stages if stage.name == "context")

    def network(self) -> Run:
        """Return the network with the optimizer of the stage that trains it."""
        channels = self.case.volume.channels
        module = self.architecture.build(self.config, channels, self.pool.n_classes)
        run = Run(module.train(), module)
        begin_stage(run, self.stage)
        return run


def update(run: Run, loss: Tensor) -> None:
    """Backward and update."""
    assert run.optimizer is not None
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()


def bare_step(setting: Setting) -> Callable[[], None]:
    """Return the step that there is no way around."""
    run, stage = setting.network(), setting.stage
    batches = [stage.sample(torch.Generator().manual_seed(n)) for n in range(KEPT_BATCHES)]
    count = 0

    def step() -> None:
        nonlocal count
        update(run, stage.loss(run.module, batches[count % KEPT_BATCHES], 0))
        count += 1

    return step


def monai_step(setting: Setting) -> Callable[[], None]:
    """Return MONAI's step on the same network."""
    run, case, training = setting.network(), setting.pool.cases[0], setting.training
    classes = setting.pool.n_classes
    data = {"image": case.standardized, "label": torch.from_numpy(case.target + 1)[None]}
    both = ("image", "label")
    transforms = Compose([
        EnsureTyped(both),
        AddCoordinateChannelsd("image", spatial_dims=(0, 1, 2)),
        ClassesToIndicesd("label", num_classes=classes + 1),
        RandCropByLabelClassesd(
            both, "label", setting.config.patches[0], ratios=[0] + [1] * classes,
            num_classes=classes + 1, num_samples=setting.config.batch_size,
            indices_key="label_cls_indices",
        ),
        Rand3DElasticd(
            both, sigma_range=(5, 8), magnitude_range=(50, 150), prob=training.augmentation,
            rotate_range=(0.26,) * 3, scale_range=(training.scaling,) * 3,
            mode=("bilinear", "nearest"), padding_mode="reflection",
        ),
        RandScaleIntensityd("image", training.gray_value, prob=1),
        RandShiftIntensityd("image", training.gray_value, prob=1),
    ])  # fmt: skip
    dataset = CacheDataset([data] * 64, transforms, num_workers=0, progress=False, cache_num=1)
    loader = ThreadDataLoader(dataset, batch_size=1, num_workers=0, buffer_size=2)
    score = DiceCELoss(to_onehot_y=True, softmax=True)

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        batch = next(batches)
        target = (batch["label"].long() - 1).clamp_min(0)
        logits = run.module.unet(batch["image"].as_tensor())
        update(run, score(logits, target.as_tensor()))

    return step


def our_steps(setting: Setting) -> Iterator[float]:
    """Train; yield the seconds of each step of that stage."""
    events = train(setting.case, setting.training)
    while True:
        began = time.perf_counter()
        event = next(events, None)
        if event is None:
            return
        if event.stage == setting.stage.name and event.loss is not None:
            yield time.perf_counter() - began


def compare(setting: Setting, peer: bool) -> dict[str, Any]:
    """Train to the end, and take a step of the others after each of ours."""
    others = {"bare": bare_step(setting)} | ({"monai": monai_step(setting)} if peer else {})
    for step in others.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
    for ours in our_steps(setting):
        seconds["ours"].append(ours)
        for name, step in others.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    rows: dict[str, Any] = {}
    for name, times in seconds.items():
        pairs = [a / b for a, b in zip(times, seconds["bare"], strict=True)]
        rows[name] = {"ms": 1e3 * statistics.median(times), "ratio": statistics.median(pairs)}
    rows["whole stage"] = {
        "ms": 1e3 * statistics.mean(seconds["ours"]),
        "ratio": sum(seconds["ours"]) / sum(seconds["bare"]),
    }
    return rows | {"turns": len(seconds["ours"])}


def work_alone(name: str) -> Callable[[], None]:
    """Return some steps of a way, ready to be taken."""
    # One of each stage, for each is followed by a look at held-out voxels, which takes longer.
    setting = Setting(TrainingConfig(steps=2, device="cpu"))
    if name == "ours":
        return lambda: list(our_steps(setting)).clear()

    def steps() -> None:
        step = bare_step(setting) if name == "bare" else monai_step(setting)
        for _ in range(STEPS_ALONE):
            step()

    return steps


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="of our training")
    parser.add_argument("--no-peer", action="store_true", help="leave MONAI out")
    parser.add_argument("--alone", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if arguments.alone:
        print_memory(work_alone(arguments.alone))
        return
    setting = Setting(TrainingConfig(minutes=arguments.minutes, device="cpu"))
    rows = compare(setting, not arguments.no_peer)
    print(f"{describe_device(setting.device)}, {rows.pop('turns')} turns")
    print(f"{'':12}{'ms':>8}{'ratio':>8}{'peak MB':>9}{'before':>8}")
    for name, row in rows.items():
        memory = ""
        if name in NAMES:
            row |= memory_alone(__file__, "--alone", name)
            memory = f"{row['peak_mb']:9.0f}{row['idle_mb']:8.0f}"
        print(f"{name:12}{row['ms']:8.0f}{row['ratio']:8.2f}{memory}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
