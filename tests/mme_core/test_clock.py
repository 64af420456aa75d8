"""A pause does not use up a time limit."""

import signal
import subprocess
import sys
import time

WAIT = """
import sys, time
from mme_core.clock import deadline_after, has_passed
deadline, began = deadline_after(4), time.monotonic()
print("begun", flush=True)
while not has_passed(deadline):
    time.sleep(0.05)
print(time.monotonic() - began)
"""


def wait(pause):
    process = subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    if pause:
        time.sleep(0.7)
        process.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        process.send_signal(signal.SIGCONT)
    return float(process.communicate(timeout=60)[0])


def test_a_limit_is_wall_clock():
    assert 4 <= wait(0) < 6


def test_a_pause_does_not_count():
    assert wait(6) > 7  # up to 3 s of the pause count
