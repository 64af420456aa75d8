import json

import pytest

from mme_core import cli
from preprocess import doctor
from preprocess.doctor import FAIL, NOTE, OK, Finding


def without(monkeypatch, *names):
    """The doctor finds none of these modules."""
    real = doctor.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in names else real(name))


def verdicts(check):
    return {finding.name: finding.verdict for finding in check()}


def test_a_sound_machine(monkeypatch, capsys):
    without(monkeypatch, "torch")  # the training step takes long
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    lines = {line[5:21].strip(): line for line in out.splitlines()}
    assert lines["stage 1, tried"].startswith("ok")
    assert lines["stage 2"].startswith("note") and "pip install '.[train]'" in lines["stage 2"]
    assert {"python", "numpy", "cores", "memory", "decoders", "Ray"} <= set(lines)


def test_one_step_of_training_is_tried(monkeypatch):
    asked = []

    def note(name, words, done):
        asked.append(words)
        return Finding(OK, name, done)

    monkeypatch.setattr(doctor, "_try", note)
    assert set(verdicts(doctor.both_stages).values()) == {OK}
    assert [words[0] for words in asked] == ["flows", "pretrain"]


def test_missing_packages(monkeypatch):
    without(monkeypatch, "av", "ray", "torch")
    assert verdicts(doctor.versions)["av"] == FAIL
    assert verdicts(doctor.ray) == {"Ray": NOTE}
    assert verdicts(doctor.stage2) == {"stage 2": NOTE}
    assert verdicts(doctor.both_stages) == {"stage 1, tried": FAIL}
    assert list(doctor.decoders()) == []


def test_a_failure_is_status_1_and_names_the_reason(monkeypatch, capsys):
    words = ["flows", "--dataset", "folder", "--root", "/nowhere", "--store", "x"]
    monkeypatch.setattr(doctor, "CHECKS", (lambda: iter([doctor._try("tried", words, "done")]),))
    assert cli.main(["doctor", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding["verdict"] == FAIL
    assert (
        finding["text"].startswith("exit status 2: mme flows: ") and "/nowhere" in finding["text"]
    )


@pytest.mark.parametrize(("name", "said"), [("avx512_bf16", True), ("", False), (None, False)])
def test_bf16_is_recommended_where_the_cpu_has_it(name, said, monkeypatch):
    monkeypatch.setattr(doctor, "bf16_instructions", lambda: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = next(one.text for one in doctor.stage2() if one.name == "GPU")
    assert ("precision=bf16" in text) == said


@pytest.mark.parametrize(
    ("free", "limits", "verdict", "text"),
    [
        (8_000_000, [], OK, "8.2 of 16.4 GB free"),
        (8_000_000, [(4 * 10**9, 5 * 10**8), (2**63, 0)], OK, "3.5 of 4.0 GB free"),
        (900_000, [], NOTE, "0.9 of 16.4 GB free: a worker needs 1 GB"),
    ],
)
def test_memory_counts_the_limit_of_a_container(tmp_path, free, limits, verdict, text):
    (tmp_path / "meminfo").write_text(f"MemTotal: 16000000 kB\nMemAvailable: {free} kB\n")
    (found,) = doctor._memory(tmp_path / "meminfo", limits)
    assert (found.verdict, found.text) == (verdict, text)
