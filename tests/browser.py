"""Headless Chromium through its own pipe: what a page looks like, and what goes wrong on it.

python -m tests.browser runs/shapes-seed0/report.html docs/report-light.png --width 1440
"""

import argparse
import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60.0
"""How long one answer may take."""
GONE_SECONDS = 5.0
"""How long killed processes are waited for; where nobody collects them they never are gone, and write nothing."""


class Browser:
    """`with Browser() as browser: browser.open(file, width=390, dark=True)`."""

    def __enter__(self) -> "Browser":
        assert CHROMIUM, "no Chromium: apt-get install chromium"
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-")
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # The browser reads its descriptor 3 and writes its descriptor 4; the shell puts our ends there.
        self._process = subprocess.Popen(
            [
                "bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash", CHROMIUM,
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe", "about:blank",
            ],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._numbers, self._rest, self._events = itertools.count(1), b"", []
        self._session: str | None = None
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def _end(self) -> None:
        """Kill the browser with its helpers, and wait for them: they write into the profile until they are gone."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + GONE_SECONDS
        while time.monotonic() < deadline:
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.01)

    def open(self, file: Path, *, width: int = 1440, height: int = 1000, dark: bool = False) -> None:
        """Load a file at a width in CSS pixels, and wait until all of it is there."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if width < 600 else 1,
            mobile=width < 600,
        )
        self._events.clear()
        self.ask("Page.navigate", url=file.resolve().as_uri())
        deadline = time.monotonic() + SECONDS
        while self.value("document.readyState") != "complete" or self.value("location.href") == "about:blank":
            assert time.monotonic() < deadline, f"{file} does not finish loading"
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        self.value("0")
        return [
            json.dumps(event["params"])
            for event in self._events
            if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        ]

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """The window as PNG, or the whole page."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(answer["data"]))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol and its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 20)
            assert part, "Chromium is gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a picture of a page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=1000)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--whole", action="store_true", help="the whole page, not the window")
    chosen = parser.parse_args()
    with Browser() as browser:
        browser.open(chosen.page, width=chosen.width, height=chosen.height, dark=chosen.dark)
        browser.screenshot(chosen.picture, whole=chosen.whole)


if __name__ == "__main__":
    main()
