from __future__ import annotations

import pytest

from napari_volseg.data.units import convert_length, normalize_unit


@pytest.mark.parametrize(
    "text",
    [
        *("µm", "\N{GREEK SMALL LETTER MU}m", "um", "micron", "microns", "Micrometre"),
        *("\\u00B5m", "micrometers", " micrometer\0"),
    ],
)
def test_every_spelling_of_the_micrometer_is_understood(text):
    assert normalize_unit(text) == "micrometer"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("mm", "millimeter"),
        ("nm", "nanometer"),
        ("Å", "angstrom"),
        ("inches", "inch"),
        ("cm", "centimeter"),
        ("m", "meter"),
        ("s", "pixel"),
        ("reference frame", "pixel"),
        ("", "pixel"),
        (None, "pixel"),
    ],
)
def test_other_units_get_their_full_name_and_the_unknown_is_a_pixel(text, unit):
    assert normalize_unit(text) == unit


def test_lengths_are_converted_exactly():
    assert convert_length(0.2, "micrometer", "millimeter") == 0.0002
    assert convert_length(300, "nanometer", "micrometer") == 0.3
    assert convert_length(1, "inch", "centimeter") == 2.54
    assert convert_length(7, "pixel", "micrometer") == 7
