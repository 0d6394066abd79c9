"""Options that commands share, and those made from the fields of the configs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_origin, get_type_hints

from cyclopts import Parameter, Token

from napari_volseg.data.labels import ALL_LABELED
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.config_help import field_help
from napari_volseg.sparse.object_config import ObjectConfig

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
Json = Annotated[bool, Parameter(name="--json", negative=())]


def parse_unlabeled(annotated: type, tokens: Sequence[Token]) -> int:
    """Read a label value, or "none"."""
    text = tokens[0].value
    if text == "none":
        return ALL_LABELED
    try:
        return int(text)
    except ValueError:
        raise ValueError('give a label, as 3, or "none".') from None


Unlabeled = Annotated[int, Parameter(converter=parse_unlabeled)]


def _parse_object(annotated: type, tokens: Sequence[Token]) -> dict[str, Any]:
    value = json.loads(tokens[0].value)
    if not isinstance(value, dict):
        raise ValueError('give a JSON object, as {"channels": 16}.')
    return {name: _frozen(entry) for name, entry in value.items()}


def _frozen(value: Any) -> Any:
    """Turn JSON's lists into the tuples that configurations hold."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _parse_numbers(annotated: type, tokens: Sequence[Token]) -> tuple[float, ...]:
    return tuple(float(part) for part in tokens[0].value.split(","))


def _options_of(config: type) -> Any:
    """Make a dictionary type with an optional key for each field of a dataclass.

    Not the dataclass itself, because only what the user gave may replace what a model
    that is resumed was trained with.
    """
    hints, texts = get_type_hints(config), field_help(config)
    keys: dict[str, Any] = {}
    one_word: dict[str, Any] = {"n_tokens": 1, "accepts_keys": False}
    for field in fields(config):
        text, hint = texts[field.name], hints[field.name]
        if get_origin(hint) is Mapping:
            parameter = Parameter(help=f"{text} As JSON.", converter=_parse_object, **one_word)
            hint = dict
        elif get_origin(hint) is tuple:
            text += " Separated by commas."
            parameter = Parameter(help=text, converter=_parse_numbers, negative=(), **one_word)
        else:
            parameter = Parameter(help=f"{text} [default: {field.default}]")
        keys[field.name] = Annotated[hint, parameter]
    make: Any = TypedDict
    return make(f"{config.__name__}Options", keys, total=False)


if TYPE_CHECKING:
    TrainingOptions = dict[str, Any]
    ObjectOptions = dict[str, Any]
else:
    TrainingOptions = _options_of(TrainingConfig)
    ObjectOptions = _options_of(ObjectConfig)
