"""Limits of memory of a process' own group and of those above it."""

from mme_core.control_groups import memory_limits


def limits(tmp_path, membership, files):
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(membership)
    return list(memory_limits(tmp_path / "groups", tmp_path / "self"))


def test_every_group_of_version_2_up_to_the_mount_counts(tmp_path):
    files = {
        "slurm/job/step/memory.max": "max\n",
        "slurm/job/memory.max": "4000\n",
        "slurm/job/memory.current": "1500\n",
        "slurm/other/memory.max": "10\n",
        "memory.max": "9000\n",
    }
    assert limits(tmp_path, "0::/slurm/job/step\n", files) == [(4000, 1500), (9000, 0)]


def test_groups_of_version_1_are_those_of_memory(tmp_path):
    files = {
        "memory/slurm/job/memory.limit_in_bytes": "5000\n",
        "memory/slurm/job/memory.usage_in_bytes": "100\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/other/memory.limit_in_bytes": "7\n",
    }
    found = limits(tmp_path, "4:memory:/slurm/job\n3:cpu:/other\n", files)
    assert found == [(5000, 100), (9223372036854771712, 0)]


def test_container_that_sees_only_its_group(tmp_path):
    assert limits(tmp_path, "0::/docker/1\n", {"memory.max": "10\n"}) == [(10, 0)]


def test_system_without_control_groups(tmp_path):
    assert list(memory_limits(tmp_path, tmp_path / "nothing")) == []
