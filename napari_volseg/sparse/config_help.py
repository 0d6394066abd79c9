"""The text under a configuration's fields, for tooltips and ``--help``."""

from __future__ import annotations

from functools import cache

from docstring_parser import parse_from_object


@cache
def field_help(config: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, by the field's name, on one line.

    Fields without one are left out.
    """
    described = parse_from_object(config).params
    return {p.arg_name: " ".join(p.description.split()) for p in described if p.description}
