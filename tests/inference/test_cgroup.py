"""Limits of containers and batch systems, in a made-up root of a file system."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from napari_volseg.inference import cgroup
from napari_volseg.inference.cgroup import memory_left
from napari_volseg.inference.device import free_memory, pick_device

if TYPE_CHECKING:
    from pathlib import Path

V1 = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
V2 = "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"
NONE_V1 = 2**63 - 4096


@pytest.fixture
def machine(tmp_path):
    """Return what makes a machine of one version's control groups, with this process in one."""

    def machine(version, path, groups) -> Path:
        folder, limit, used, cache = version
        (tmp_path / "proc/self").mkdir(parents=True)
        own = f"0::{path}" if version is V2 else f"9:cpu,cpuacct:/other\n4:memory:{path}\n0::/"
        (tmp_path / "proc/self/cgroup").write_text(own + "\n")
        for group, (most, now, cached) in groups.items():
            place = tmp_path / folder / group
            place.mkdir(parents=True, exist_ok=True)
            (place / limit).write_text(f"{most}\n")
            (place / used).write_text(f"{now}\n")
            (place / "memory.stat").write_text(f"anon 5\n{cache} {cached}\n")
        return tmp_path

    return machine


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
def test_a_limit_leaves_what_is_not_used_or_only_cached(machine, version):
    root = machine(version, "/", {"": (1000, 600, 50)})
    assert memory_left(root) == 450


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
def test_the_tightest_of_the_groups_around_counts(machine, version):
    without = NONE_V1 if version is V1 else "max"
    groups = {
        "slurm": (900, 100, 0),
        "slurm/job_7": (500, 90, 0),
        "slurm/job_7/step": (without, 80, 0),
    }
    assert memory_left(machine(version, "/slurm/job_7/step", groups)) == 410


@pytest.mark.parametrize("version", [V1, V2], ids=["v1", "v2"])
def test_a_container_that_is_told_its_hosts_path_finds_its_own_limit(machine, version):
    assert memory_left(machine(version, "/docker/3f1a", {"": (1000, 600, 0)})) == 400


def test_a_group_over_its_limit_leaves_nothing(machine):
    assert memory_left(machine(V2, "/", {"": (1000, 1100, 0)})) == 0


def test_where_no_limit_is_there_is_none(machine, tmp_path):
    assert memory_left(tmp_path) == math.inf
    assert memory_left(machine(V2, "/user", {"user": ("max", 100, 0)})) == math.inf


def test_plans_are_made_with_what_a_container_leaves(machine, monkeypatch):
    cpu, root = pick_device("cpu"), machine(V2, "/", {"": (1000, 600, 0)})
    monkeypatch.setattr(cgroup, "memory_left", lambda: memory_left(root))
    assert free_memory(cpu) == 400
    monkeypatch.setattr(cgroup, "memory_left", lambda: math.inf)
    assert free_memory(cpu) > 10**6
