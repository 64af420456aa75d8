"""The storms of benchmarks/reliability at toy sizes: they run, count, and tell good from broken."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_files import write_tree

FOLDER = Path(__file__).parents[2] / "benchmarks" / "reliability"


def storm(name, *words, limit=600):
    """(exit status, output) of one of the scripts."""
    command = [sys.executable, FOLDER / f"{name}.py", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, result.stdout


def test_flipped_bytes_of_chunks_are_all_reported():
    status, output = storm("flip_store", "--flips", 39, "--videos", 2)
    rows = re.findall(r"^chunks of (\w+) +(\d+) +0 +0 +0 +0 +0 +0$", output, re.MULTILINE)
    assert len(rows) == 8 and {count for _, count in rows} == {"3"}
    assert status == ("BROKEN" in output)


def test_damaged_videos_are_stored_or_quarantined(tmp_path):
    write_tree(tmp_path, 3)
    status, output = storm("mutate_videos", tmp_path, "--mutants", 12, "--timeout", 60)
    assert status == 0, output
    stored = sum(int(count) for count in re.findall(r": (\d+) stored", output))
    quarantined = sum(int(count) for count in re.findall(r"(\d+) × quarantined", output))
    assert stored + quarantined == 12


def test_folder_without_videos_is_refused(tmp_path):
    command = [sys.executable, FOLDER / "mutate_videos.py", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "no video in" in result.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_stage_1_ends_with_the_same_store():
    status, output = storm("kill_flows", "--videos", 8, "--kills", 3, limit=1800)
    assert status == 0, output
    assert output.startswith("3 kills")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_training_ends_with_the_same_numbers():
    words = ("--steps", 16, "--kills", 1, "--loader-kills", 1)
    _, output = storm("kill_train", *words, limit=1800)
    assert output.startswith("2 kills")
    assert "kept    weights and losses are those of an undisturbed run" in output


@pytest.mark.slow
def test_long_run_is_measured():
    _, output = storm("soak", "--videos", 60, "--windows", 1000)
    assert len(re.findall(r"MB and [+-]\d+\.\d+ files for 1000", output)) == 4


@pytest.mark.slow
def test_two_drivers_never_share_a_store():
    status, output = storm("two_drivers", "--rounds", 2, "--locks", 10)
    assert status == 0, output
    assert output.count("kept") == 4
