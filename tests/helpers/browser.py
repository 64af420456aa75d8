"""Headless Chromium, driven over a pipe: screenshots, widths and console errors of a page."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)
PATIENCE_S = 60


@dataclass(frozen=True)
class Look:
    """What a page looked like.

    width     of its content, CSS pixels
    problems  messages of the console, errors and requests to a network
    png       screenshot of the whole page
    """

    width: int
    problems: list[str]
    png: bytes


class Browser:
    """`with Browser(folder) as browser: look = browser.look(path, 390)`."""

    def __init__(self, profile: Path) -> None:
        self._profile, self._number, self._events = profile, 0, []

    def __enter__(self) -> Browser:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        script = f'exec 3<&{to_read} 4>&{to_write}; exec "$0" "$@"'
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={self._profile}", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--disable-background-networking"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, BROWSER, *options],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        os.set_blocking(self._read, False)
        self._buffer = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def look(self, path: Path, width: int, height: int = 900) -> Look:
        """Opens a file at a width of the window, in CSS pixels."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        self._events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self._wait_for("Page.loadEventFired")
        wide = self.call("Runtime.evaluate", expression="document.documentElement.scrollWidth")[
            "result"
        ]["value"]
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return Look(wide, self._problems(path), base64.b64decode(shot["data"]))

    def _problems(self, path: Path) -> list[str]:
        found = []
        for event in self._events:
            name, values = event["method"], event["params"]
            if name in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                found.append(f"{name}: {json.dumps(values)[:300]}")
            if name == "Network.requestWillBeSent":
                url = values["request"]["url"]
                if not url.startswith("data:") and url != path.absolute().as_uri():
                    found.append(f"asks for {url}")
        return found

    def call(self, method: str, **values: object) -> dict:
        """The result of a command of Chrome's DevTools protocol."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": values}
        if hasattr(self, "_session"):
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        while True:
            answer = self._next(method)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _wait_for(self, event: str) -> None:
        while not any(one["method"] == event for one in self._events):
            self._next(event)

    def _next(self, wanted: str) -> dict:
        """The next message; events are kept."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            assert time.monotonic() < deadline, f"the browser does not answer {wanted}"
            try:
                self._buffer += os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message
