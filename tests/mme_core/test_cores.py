"""The cores of an affinity and of a quota."""

import os

import pytest

from mme_core.cores import bf16_instructions, usable_cores


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def count(tmp_path, membership, **files):
    for name, text in files.items():
        path = tmp_path / "groups" / name.replace("__", "/").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(membership)
    return usable_cores(tmp_path / "groups", tmp_path / "self")


@pytest.mark.parametrize(
    ("text", "cores"),
    [("100000 100000", 1), ("250000 100000", 3), ("50000 100000", 1), ("max 100000", 8)],
)
def test_a_quota_of_version_2(eight, tmp_path, text, cores):
    (tmp_path / "groups" / "job").mkdir(parents=True)
    (tmp_path / "groups" / "job" / "cpu.max").write_text(text)
    assert count(tmp_path, "0::/job/step\n") == cores


def test_the_quota_of_a_container_that_sees_only_its_group(eight, tmp_path):
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "cpu.max").write_text("200000 100000\n")
    assert count(tmp_path, "0::/\n") == 2
    assert count(tmp_path, "0::/system.slice/docker-1.scope\n") == 2


@pytest.mark.parametrize(("quota", "cores"), [("100000", 1), ("300000", 3), ("-1", 8)])
def test_a_quota_of_version_1(eight, tmp_path, quota, cores):
    files = {
        "cpu,cpuacct__slurm__cfs_quota_us": quota,
        "cpu,cpuacct__slurm__cfs_period_us": "100000",
    }
    membership = "5:memory:/slurm\n4:cpu,cpuacct:/slurm/job_1\n0::/\n"
    assert count(tmp_path, membership, **files) == cores


def test_no_control_groups(eight, tmp_path):
    assert usable_cores(tmp_path / "none", tmp_path / "nothing") == 8


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, None),
        ("flags\t\t: sse2 avx512f\n", ""),
        ("flags\t\t: sse2 avx512_bf16 avx512f\n", "avx512_bf16"),
        ("Features\t: fp asimd bf16\n", "bf16"),
    ],
)
def test_bf16_instructions_are_named(tmp_path, text, name):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert bf16_instructions(tmp_path / "cpuinfo") == name
