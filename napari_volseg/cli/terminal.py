"""How the command line talks: progress on stderr, checks of outputs, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from napari_volseg.data.atomic import check_folder, telling
from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path
    from types import FrameType

SECONDS_BETWEEN_LINES = 10.0
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")

Report = Callable[[float, str], None]

Result = TypeVar("Result")


def print_json(document: Any) -> None:
    """Write a result to stdout, as one JSON document."""
    json.dump(document, sys.stdout, allow_nan=False, indent=2)
    print()


def say(line: str) -> None:
    """Write a line for the user to stderr; stdout is for results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show progress on stderr: a bar on a terminal, else a line every ten seconds.

    Yields
    ------
    report : callable (fraction, text)
        How much is done, 0 to 1, and a few words.
    """
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1.0, text="")
        yield lambda fraction, text: bar.update(task, completed=fraction, text=text)


def _lines(title: str) -> Report:
    last = -SECONDS_BETWEEN_LINES

    def report(fraction: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if fraction >= 1 or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            say(f"{title} {fraction:4.0%}  {text}".rstrip())

    return report


def follow(work: Generator[float, None, Result], title: str) -> Result:
    """Do work that yields how much is done, 0 to 1, show that, and return what it returns."""
    with progress(title) as report:
        while True:
            try:
                report(next(work), "")
            except StopIteration as end:
                result: Result = end.value
                return result


@contextmanager
def silence_if(quiet: bool) -> Iterator[None]:
    """Say nothing of what goes on, if another process says it already; errors still rise."""
    with redirect_stderr(StringIO()) if quiet else nullcontext():
        yield


@contextmanager
def stop_on_interrupt(twice: bool = True) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a polite request; the second interrupts as usual.

    Parameters
    ----------
    twice : bool
        Whether there is a second one. A process among several gets each of them from the
        terminal and again from what started it.

    Yields
    ------
    requested : callable () -> bool
        Whether Ctrl-C was pressed.
    """
    pressed = threading.Event()

    def note(signum: int, frame: FrameType | None) -> None:
        if pressed.is_set() and twice:
            raise KeyboardInterrupt
        if not pressed.is_set():
            again = "; press Ctrl-C again to stop at once and lose the training" if twice else ""
            say(f"stopping after this step{again}")
        pressed.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def check_display() -> None:
    """Refuse, in words, to open a window where there can be none.

    Raises
    ------
    InputError
        If no Qt binding is installed, or there is no display.
    """
    without = "train, predict, evaluate and demo --headless work without"
    if not any(find_spec(binding) for binding in QT_BINDINGS):
        raise InputError(
            f'the window needs a Qt binding: pip install "napari-volseg[all]"; {without}'
        )
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(map(os.environ.get, displays)):
        raise InputError(f"no display to open a window on; {without}")


def check_output(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Make sure, before long work, that a file can be written.

    Raises
    ------
    InputError
        If its folder is missing or not writable, or it is one of the inputs.
    """
    check_folder(path)
    with telling(path), tempfile.TemporaryFile(dir=path.parent):
        pass
    if any(path.exists() and path.samefile(i) for i in inputs if i.exists()):
        raise InputError(f"{path}: is an input and would be overwritten; choose another name")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make errors about what is in a file name the file.

    Raises
    ------
    InputError
        With the path in front, unless the message holds it already.
    """
    try:
        yield
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
