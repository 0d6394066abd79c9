"""Measure when a training first shows something worth looking at, from pressing Train.

    python benchmarks/first_preview.py [--cases phantom_2_1_1 ...] [--data FOLDER]
        [--seconds 60] [--device cpu] [--json out/first_preview.json]

Each case of `volumes.py` is trained with the defaults, and as in the window a preview of a
slice is asked for one second after the first step, then every few seconds. The slice is the
unpainted one across z that holds most foreground. Reported are the wall-clock seconds until
the first step, until the first preview, and until the first one whose mean IoU over the
foreground is at least 0.5; and that of each preview. A machine that is busy with other work
measures that work.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from volumes import case_of

from napari_volseg import TrainingConfig, train
from napari_volseg.data.annotation import BACKGROUND, UNLABELED, Annotation
from napari_volseg.data.tiles import slice_region
from napari_volseg.review.metrics import evaluate
from napari_volseg.training.events import Command, PreviewRequest
from napari_volseg.widgets.preview import FIRST_SECONDS, LEAST_SECONDS, REST

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Case

ENOUGH = 0.5
"""Mean IoU of a preview that is worth looking at."""


def unpainted_slice(case: Case, truth: Annotation) -> int:
    """Return the slice across z with nothing annotated by itself that has most foreground."""
    whole = (case.annotation.labels != UNLABELED).all((1, 2))
    foreground = (truth.labels > BACKGROUND).sum((1, 2))
    return int(np.where(whole, -1, foreground).argmax())


def previews(case: Case, truth: Annotation, seconds: float, device: str) -> dict[str, Any]:
    """Train, and note when previews came and how good they were."""
    region = slice_region(case.volume.shape, 0, unpainted_slice(case, truth))
    config = TrainingConfig(minutes=max(1.0, seconds / 60), device=device)
    began = time.perf_counter()
    running = train(case, config)
    event, first_step, due, waiting, found = next(running), None, None, False, []
    while event.fraction < 1:
        now = time.perf_counter() - began
        if first_step is None and event.step > 0:
            first_step, due = now, now + FIRST_SECONDS
        if event.preview is not None:
            waiting, due = False, now + max(LEAST_SECONDS, REST * event.preview.seconds)
            iou = evaluate(Annotation(event.preview.labels), sliced(truth, region)).foreground.iou
            found.append({"seconds": now, "iou": iou})
        if now > seconds and found:
            running.send(Command.STOP)
            break
        ask = due is not None and not waiting and now >= due
        waiting = waiting or ask
        event = running.send(PreviewRequest(region) if ask else None)
    good = [preview["seconds"] for preview in found if preview["iou"] >= ENOUGH]
    return {
        "first_step_s": first_step,
        "first_preview_s": found[0]["seconds"] if found else None,
        "first_good_s": good[0] if good else None,
        "previews": found,
    }


def sliced(truth: Annotation, region: tuple[slice, slice, slice]) -> Annotation:
    """Return what is true of a region."""
    return Annotation(truth.labels[region])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=["phantom_2_1_1"])
    parser.add_argument("--data", type=Path, help="folder with the real volumes")
    parser.add_argument("--seconds", type=float, default=60.0, help="to train")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path("out/first_preview.json"))
    arguments = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    table: dict[str, Any] = {"machine": machine, "cases": {}}
    print(f"{'case':22} {'step':>6} {'preview':>8} {'good':>6}  ({machine}, seconds)")
    for name in arguments.cases:
        case, truth = case_of(arguments.data, name)
        row = previews(case, truth, arguments.seconds, arguments.device)
        table["cases"][name] = row
        shown = [row[key] for key in ("first_step_s", "first_preview_s", "first_good_s")]
        step, preview, good = ("-" if s is None else f"{s:.1f}" for s in shown)
        ious = " ".join(f"{p['seconds']:.0f}s:{p['iou']:.2f}" for p in row["previews"])
        print(f"{name:22} {step:>6} {preview:>8} {good:>6}  {ious}", flush=True)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
