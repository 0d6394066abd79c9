"""The text under a configuration's fields, for tooltips and ``--help``."""

from __future__ import annotations

from functools import cache

from docstring_parser import parse_from_object


@cache
def field_help(config: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, by the field's name, on one line.

    Fields without one are left out.
    """
    # Only a class's own fields are in its source; those it inherits are in its base's.
    described = [p for c in reversed(config.__mro__[:-1]) for p in parse_from_object(c).params]
    return {p.arg_name: " ".join(p.description.split()) for p in described if p.description}
