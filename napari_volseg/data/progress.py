"""Work that tells how far it is: generators that yield a part of 1, and return what they made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator

Result = TypeVar("Result")


def result_of(work: Generator[Any, None, Result]) -> Result:
    """Run a generator to its end, and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result


def part_of(
    work: Generator[float, None, Result], start: float, stop: float
) -> Generator[float, None, Result]:
    """Do work that is part of another, from ``start`` to ``stop`` of it."""
    while True:
        try:
            done = next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield start + (stop - start) * done
