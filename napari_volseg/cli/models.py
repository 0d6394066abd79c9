"""The work of ``napari-volseg models``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from napari_volseg.models.registry import count_all, networks


def describe_models() -> list[dict[str, Any]]:
    """Return name, paper and parameters of every network, as plain values."""
    return [
        {
            "name": network.name,
            "title": network.title,
            "labels": network.labels,
            "paper": network.paper,
            "parameters": network.paper_parameters(),
            "parameters_with_normalization": replace(network, count=count_all).paper_parameters(),
        }
        for network in networks().values()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Return what ``describe_models`` told, for reading."""
    lines = []
    for row in rows:
        counted, total = row["parameters"], row["parameters_with_normalization"]
        more = f" ({total:,} with normalization)" if total != counted else ""
        lines += [f"{row['name']:<20} {row['title']}, labels {row['labels']}"]
        lines += [f"{'':<20} {counted:,} parameters{more}", f"{'':<20} {row['paper']}"]
    return "\n".join(lines)
