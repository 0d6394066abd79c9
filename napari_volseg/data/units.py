"""Units of length: the spellings that files use, and one name for each."""

from __future__ import annotations

PIXEL = "pixel"

# In picometers, as whole numbers: ratios of them are exact where decimal fractions are not.
_PICOMETERS = {
    "kilometer": 10**15,
    "meter": 10**12,
    "decimeter": 10**11,
    "centimeter": 10**10,
    "millimeter": 10**9,
    "micrometer": 10**6,
    "nanometer": 10**3,
    "angstrom": 10**2,
    "picometer": 1,
    "foot": 304_800_000_000,
    "inch": 25_400_000_000,
}

_SPELLINGS = {
    "km": "kilometer",
    "m": "meter",
    "dm": "decimeter",
    "cm": "centimeter",
    "mm": "millimeter",
    "um": "micrometer",
    "µm": "micrometer",  # the micro sign, U+00B5
    "μm": "micrometer",  # the Greek letter mu, U+03BC
    "\\u00b5m": "micrometer",  # as ImageJ escapes it
    "micron": "micrometer",
    "microns": "micrometer",
    "nm": "nanometer",
    "å": "angstrom",
    "ångström": "angstrom",
    "pm": "picometer",
    "ft": "foot",
    "feet": "foot",
    "in": "inch",
    '"': "inch",
    "inches": "inch",
}

_SHORT = {"micrometer": "µm", "millimeter": "mm", "nanometer": "nm", PIXEL: "px"}


def short_unit(unit: str) -> str:
    """Return the usual abbreviation of a unit of length, where it has one."""
    return _SHORT.get(unit, unit)


def normalize_unit(text: str | None) -> str:
    """Return the name that pint knows for a unit of length, "pixel" for anything else.

    Understands abbreviations ("µm", "mm"), British spelling and plurals.
    """
    name = (text or "").strip().strip("\0").lower().replace("metre", "meter")
    name = _SPELLINGS.get(name, name)
    if name not in _PICOMETERS:
        name = name.removesuffix("s")
    return name if name in _PICOMETERS else PIXEL


def convert_length(value: float, unit: str, to: str) -> float:
    """Return a length in another unit; unchanged where either is "pixel"."""
    if unit == to or PIXEL in (unit, to):
        return value
    return value * _PICOMETERS[unit] / _PICOMETERS[to]
