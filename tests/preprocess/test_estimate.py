"""`mme estimate`: time and space of stage 1, from a sample."""

from small_files import SPEC, write_tree

from mme_core.cli import main as mme
from preprocess.estimate import describe, estimate
from preprocess.jobs import Outcome


def test_estimate(tmp_path, capsys):
    videos = write_tree(tmp_path / "videos", 4)
    (videos / "a/000.mp4").write_bytes(b"")
    words = ["estimate", "--dataset", "folder", "--root", str(videos), "--cores", "10", *SPEC]
    assert mme(words) == 0
    output = capsys.readouterr().out
    assert "4 of 4 videos" in output
    assert "on 10 cores" in output
    assert "1 in the sample: about 1 in all" in output


def test_estimate_scales_with_the_data_set():
    rows = [Outcome("", str(n), "ok", seconds=2.0, frames=100) for n in range(4)]
    lines = describe(estimate(rows, size=4_000_000, videos=3600, cores=8))
    assert lines[0].endswith("2.00 s a video on one core, 50 frames/s")
    assert lines[1:4] == [
        "work         2 core-hours (± 0)",
        "wall time    15:00 on 8 cores",
        "store        3.6 GB",
    ]
    lines = describe(estimate(rows, size=4_000, videos=4, cores=1))
    assert lines[1:4] == [
        "work         8 core-seconds (± 0)",
        "wall time    8 s on 1 core",
        "store        4 kB",
    ]


def test_a_sample_that_took_no_time_is_no_error():
    """As where the only video of the sample has crashed the decoder."""
    rows = [Outcome("", "a", "quarantined", "ended by SIGSEGV", seconds=0.0)]
    lines = describe(estimate(rows, size=0, videos=3, cores=1))
    assert lines[1] == "work         0 core-seconds (± 0)"
