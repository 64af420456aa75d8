"""`--max-failures` counts the quarantined videos among the chosen ones, each once."""

from preprocess.failures import Failures
from preprocess.jobs import OK, QUARANTINED, Outcome


def test_a_retried_video_counts_by_its_last_outcome():
    known = [Outcome("/v/a", "a", QUARANTINED), Outcome("/v/other", "other", QUARANTINED)]
    failures = Failures(1, known, {"a", "b", "c"})
    assert not failures.too_many
    failures.count([Outcome("/v/b", "b", QUARANTINED)])
    assert failures.too_many
    assert str(failures) == "2 quarantined videos, more than --max-failures 1"
    failures.count([Outcome("/v/a", "a", OK)])
    assert not failures.too_many
