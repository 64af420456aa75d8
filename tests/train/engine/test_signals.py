import os
import signal

import pytest

from train.engine.signals import STOP_SIGNALS, StoppedError, StopRequest, interrupt_waits


def handlers():
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_asks_to_stop_and_handlers_return(number):
    before = handlers()
    with StopRequest() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
    assert handlers() == before


def test_a_second_ctrl_c_interrupts_at_once(capfd):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop and "Ctrl-C again stops without saving" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_stops_at_once_where_nothing_is_unsaved(number):
    with StopRequest() as stop:
        with pytest.raises(StoppedError), stop.at_once():
            signal.raise_signal(number)
        with pytest.raises(StoppedError), stop.at_once():  # it had arrived before
            pytest.fail("not reached")


@pytest.mark.parametrize(
    ("number", "heard"),
    [
        (signal.SIGHUP, False),  # nohup
        (signal.SIGINT, False),  # a script's `command &`
        (signal.SIGUSR1, True),  # cluster/torchrun-node.sh, for torchrun alone
        (signal.SIGTERM, True),
    ],
)
def test_ignored_signals_of_a_scheduler_are_heard(number, heard):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), number)
            assert bool(stop) == heard
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_interrupt_waits_delays_every_ctrl_c():
    steps = []
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        with interrupt_waits():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("end of the block")
        steps.append("not reached")
    assert steps == ["end of the block"] and stop


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_interrupt_waits_delays_every_stop_signal(number):
    steps = []
    with StopRequest() as stop, pytest.raises(StoppedError), stop.at_once():
        with interrupt_waits():
            signal.raise_signal(number)
            steps.append("end of the block")
        steps.append("not reached")
    assert steps == ["end of the block"]


def test_interrupt_waits_restores_the_handler():
    before = signal.getsignal(signal.SIGINT)
    with interrupt_waits():
        pass
    assert signal.getsignal(signal.SIGINT) is before
