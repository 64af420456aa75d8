"""Speed, waits and idle time of a run."""

import pytest
import torch

from train.engine import meter
from train.engine.meter import Interval, Meter, Moment

CPU = torch.device("cpu")


def at(seconds):
    moment = Moment(CPU)
    moment.time = seconds
    return moment


def test_the_device_is_idle_between_the_end_of_a_step_and_the_next_batch(monkeypatch):
    monkeypatch.setattr(meter, "peak_memory", lambda _: 3.0)
    monkeypatch.setattr(meter, "peak_flops", lambda _: 1000.0)
    interval = Interval(
        clips=8, left=6, device=torch.device("cuda"), flops=300.0, start=at(0.0), end=at(4.0)
    )
    interval.steps, interval.waited = 2, 1.0
    interval.gaps = [(at(0.0), at(0.5)), (at(2.0), at(2.5))]
    assert interval.figures() == {
        "clips_per_s": 4.0,
        "data_wait": 0.25,
        "device_idle": 0.25,
        "mfu": 0.15,
        "memory": 3.0,
        "eta": 12.0,
    }


def test_a_cpu_has_no_idle_time_of_its_own_and_no_peak():
    measured = Meter(CPU, clips=4, steps_left=3, flops=1e9)
    with measured.loading():
        pass
    measured.end_step()
    figures = measured.take().figures()
    assert set(figures) == {"clips_per_s", "data_wait", "memory", "eta"}


def test_gaps_reach_from_the_end_of_work_to_the_next_batch(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    measured = Meter(CPU, clips=4, steps_left=1)
    for _ in range(2):
        with measured.loading():
            now[0] += 2
        now[0] += 3
        measured.end_micro_batch()
    gaps = measured.take().gaps
    assert [(end.time, begin.time) for end, begin in gaps] == [(0, 2), (5, 7)]


def test_pauses_are_left_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    measured = Meter(CPU, clips=4, steps_left=10)

    def step(wait, seconds):
        with measured.loading():
            now[0] += wait
        now[0] += seconds
        measured.end_step()

    step(50, 1)  # starts the loader
    now[0] += 100  # an evaluation
    measured.restart()
    step(1, 1)
    step(0, 2)
    figures = measured.take().figures()
    assert figures["clips_per_s"] == pytest.approx(2) and figures["data_wait"] == 0.25
    assert figures["eta"] == pytest.approx(7 * 2)
    step(0, 1)
    assert measured.take().figures()["clips_per_s"] == pytest.approx(4)


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("Some Card", None)],
)
def test_the_peak_is_that_of_the_card(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert meter.peak_flops(torch.device("cuda")) == peak
