"""A real vLLM, and a real browser, Debian's chromium: MARS_SCREENSHOTS names a folder to keep pictures in."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

SEARCH_BOX = "document.querySelector('input[role=searchbox]')"
CLOSE_ASSISTANT = "document.querySelector('[data-component-id$=\"chat_panel.close\"]')?.click()"
PATIENCE_SECONDS = 120


PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def vllm():
    """`make vllm` was run; its Python."""
    subprocess.run(["make", "vllm"], cwd=PROJECT, check=True)
    return PROJECT / ".venv-vllm/bin/python"


@pytest.fixture(scope="session")
def chromium():
    """`_chromium`, for tests to open and close."""
    return _chromium


@contextmanager
def _chromium(profile, script="", headers=None):
    """A browser without a window: opens a page, fills its search box, waits for texts, takes a picture."""
    program = shutil.which("chromium")
    assert program, "chromium is not installed; on Debian: apt-get install chromium"
    browser = subprocess.Popen(
        [
            program, "--headless", "--no-sandbox", "--disable-background-networking", "--no-first-run",
            "--enable-unsafe-swiftshader", "--use-angle=swiftshader",  # Prefect draws its graph by WebGL
            "--window-size=1400,1300", "--hide-scrollbars", "--remote-debugging-port=0",
            f"--user-data-dir={profile}", "about:blank",
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        address = next(found[0] for line in browser.stderr if (found := re.search(r"ws://\S+", line)))
        with connect(address, max_size=None) as socket:
            numbers = iter(range(1, 1_000_000))

            def command(method, session=None, **parameters):
                number = next(numbers)
                message = {"id": number, "method": method, "params": parameters}
                socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
                while (answer := json.loads(socket.recv(timeout=60))).get("id") != number:
                    pass
                return answer["result"]

            target = command("Target.createTarget", url="about:blank")["targetId"]
            session = command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            command("Network.enable", session)
            command("Page.enable", session)
            command("Network.setExtraHTTPHeaders", session, headers=headers or {})
            command("Page.addScriptToEvaluateOnNewDocument", session, source=script)

            def evaluated(expression):
                return command("Runtime.evaluate", session, expression=expression)["result"].get("value")

            def page(url, *awaited, picture="", search=""):
                command("Page.navigate", session, url=url)
                started, shown = time.monotonic(), ""
                while missing := [text for text in awaited if text not in shown]:
                    late = time.monotonic() - started > PATIENCE_SECONDS
                    assert not late, f"{url} does not show {missing}, but:\n{shown[:2000]}"
                    time.sleep(1)
                    if search and evaluated(f"{SEARCH_BOX}.value") != search:
                        evaluated(f"{SEARCH_BOX}.select()")
                        command("Input.insertText", session, text=search)
                    else:
                        shown = evaluated("document.body.innerText") or ""
                if picture and (folder := os.environ.get("MARS_SCREENSHOTS")):
                    evaluated(CLOSE_ASSISTANT)
                    time.sleep(5)  # what is drawn after it is written, such as graphs
                    drawn = command("Page.captureScreenshot", session)["data"]
                    (Path(folder) / f"{picture}.png").write_bytes(base64.b64decode(drawn))

            yield page
    finally:
        browser.kill()
        browser.wait()
