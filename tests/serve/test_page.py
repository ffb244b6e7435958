"""The whole of stclip serve: in a browser, and with several users at once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stclip.footage.results import read_result
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    # Not imported, which takes as long as many tests: the server is another process.
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio (extra app)"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium"),
]
PICTURES = os.environ.get("STCLIP_SCREENSHOTS")  # a folder; nothing is kept without it


class Server:
    """stclip serve in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        command = [sys.executable, "-m", "stclip", "serve", "--clip", "puppet", "--port", "0"]
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--folder", str(folder / "files"), *words],
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY,
            )  # fmt: skip
        assert self.process.stdout is not None
        lines = iter(self.process.stdout)
        found = next((line for line in lines if line.startswith("open ")), self.log.read_text())
        self.url = re.findall(r"http://\S+", found)[0]
        self.files = folder / "files"

    def status(self, path: str, **headers: str) -> int:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{self.url}/{path}", headers=headers), timeout=10
            ) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def memory(self) -> float:
        """Gigabytes of the server and its workers."""
        words = ["ps", "-o", "rss=", "--pid", str(self.process.pid), "--ppid"]
        out = subprocess.run([*words, str(self.process.pid)], capture_output=True, text=True)
        return sum(map(int, out.stdout.split())) / 2**20

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 130
        assert sorted(path.name for path in self.files.iterdir()) == ["films"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serve")
    films = folder / "files" / "films"  # one of them is drawn
    films.mkdir(parents=True)
    write_film(films / "clapping.mp4", [drawn_frame(240, 160, [])])
    (films / "clapping.tubes.json").touch()
    server = Server(folder, "--max-upload", "1", "--threads", "1")
    yield server
    server.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What users upload; the names of two are traps."""
    folder = tmp_path_factory.mktemp("films")
    people = [[(50.0 + 2 * n, 30.0, 110.0), (200.0, 40.0, 90.0)] for n in range(12)]
    film = write_film(folder / "<b>a & b.mp4", [drawn_frame(240, 160, p) for p in people])
    empty = write_film(folder / "empty.mp4", [drawn_frame(240, 160, [])] * 8)
    (folder / "broken.mp4").write_bytes(film.read_bytes()[:700])
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    (folder / "large.mp4").write_bytes(b"0" * (3 << 20))
    long = write_film(folder / "long.mp4", [drawn_frame(240, 160, people[0])] * 150)
    some = write_film(folder / "some.mp4", [drawn_frame(240, 160, p) for p in people[:6] * 6])
    return {"film": film, "some": some, "long": long, "empty": empty} | {
        name: folder / f"{name}.mp4" for name in ("broken", "list", "large")
    }


class Tab:
    """The page as one user sees it, who has nothing to complain about and asks nobody else."""

    def __init__(self, browser: Any, server: Server, width: int = 1280) -> None:
        # A user of their own: nothing is shared with other tabs.
        self.page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        self.faults: list[str] = []
        self.page.set_default_timeout(120_000)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", self._ask)
        self.server = server
        self.page.goto(server.url)
        self.page.wait_for_selector("#st-outcome")

    def _ask(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.faults.append(request.url)

    def upload(self, path: Path) -> None:
        if (clear := self.page.get_by_role("button", name="Clear")).is_visible():
            clear.click()
        self.page.locator("input[type=file]").first.set_input_files(path)
        self.page.wait_for_selector("#st-video video")

    def fill(self, path: Path, actions: str) -> None:
        self.upload(path)
        self.page.get_by_label("What do you look for?").fill(actions)

    def run(self) -> None:
        self.page.get_by_role("button", name="Find out").click()

    def begin(self, path: Path, actions: str) -> None:
        self.fill(path, actions)
        self.run()

    def wait(self, *states: str) -> str:
        """The text of the outcome once the job is in one of these states."""
        self.page.wait_for_selector(",".join(f"#st-outcome[data-state={s}]" for s in states))
        return self.page.inner_text("#st-outcome")

    def token(self) -> str:
        self.page.wait_for_url("**/?job=*")
        return self.page.url.partition("job=")[2]

    def shoot(self, name: str) -> None:
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)

    def close(self) -> None:
        assert self.faults == []
        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        self.page.context.close()


def test_from_upload_to_downloads(browser: Any, server: Server, films: dict[str, Path]) -> None:
    tab = Tab(browser, server)
    tab.shoot("start")
    tab.page.get_by_role("button", name="Who waves?").click()
    tab.page.wait_for_selector("#st-video video")
    assert tab.page.get_by_label("What do you look for?").input_value() == "wave"
    tab.shoot("example")
    tab.page.reload()
    tab.page.get_by_role("button", name="More options").click()
    tab.page.get_by_label("What else may people do?").fill("")  # something has a third then
    tab.page.get_by_label("Report from a score of").first.fill("0.05")
    tab.page.get_by_label("Report from a score of").first.press("Tab")
    tab.page.get_by_label("Follow people from a score of").first.fill("0.4")
    tab.page.get_by_label("Follow people from a score of").first.press("Tab")
    tab.begin(films["film"], "walk, <img src=x onerror=alert(1)> ${alert(2)} {{alert(3)}}\nwave")
    token = tab.token()
    tab.wait("running", "done")  # it may have been looked at before the page asks again
    tab.shoot("running")
    text = tab.wait("done")
    assert "<img src=x onerror=alert(1)> ${alert(2)} {{alert(3)}}" in text
    assert "person 1" in text
    assert tab.page.locator("#st-outcome dl img[src^=x]").count() == 0
    frame = tab.page.frame_locator("#st-result")
    frame.locator("#timeline .event").first.wait_for()
    video = frame.locator("video")
    video.evaluate("v => v.readyState >= 1 || new Promise(r => v.onloadedmetadata = r)")
    button = tab.page.locator("[data-seek]").last
    video.evaluate("v => v.currentTime = 0")
    start = float(button.get_attribute("data-seek"))
    button.click()
    tab.page.wait_for_timeout(300)
    assert video.evaluate("v => v.currentTime") == pytest.approx(start, abs=0.01)
    tab.page.locator("#st-result").scroll_into_view_if_needed()
    tab.shoot("done")

    # Files: these by name, in parts as well, with the token alone.
    folder = f"jobs/{token}"
    links = tab.page.locator(".st-files a")
    assert links.count() == 4
    assert "one action at a time" in links.last.get_attribute("title")
    with tab.page.expect_download() as download:
        links.nth(2).click()
    result = read_result(download.value.path())
    assert result.settings["track_threshold"] == 0.4
    assert result.video["path"] == films["film"].name.replace("<", "").replace(">", "")
    assert server.status(f"{folder}/annotated.mp4", Range="bytes=0-9") == 206
    for path in (
        f"{folder}/.detections.jsonl", f"{folder}/upload", f"{folder}/../{token}/upload",
        f"{folder}/%2e%2e/upload", "jobs/x/index.html", "jobs//etc/passwd",
        "gradio_api/file=/etc/passwd", f"gradio_api/file={server.files}/stclip-serve-jobs/{token}/"
        "results/index.html", "gradio_api/file=http://127.0.0.1/", "gradio_api/info", "docs",
        "gradio_api/file=stclip/__init__.py",
    ):  # fmt: skip
        assert server.status(path) == 404, path

    # Whoever has the address comes back.
    again = Tab(browser, server, width=390)
    again.page.goto(tab.page.url)
    assert "person 1" in again.wait("done")
    again.page.locator("#st-result").scroll_into_view_if_needed()
    again.page.wait_for_timeout(500)
    again.shoot("done-390")
    again.close()
    tab.close()


def test_two_at_once_and_cancelling(browser: Any, server: Server, films: dict[str, Path]) -> None:
    first, second = Tab(browser, server), Tab(browser, server, width=390)
    first.begin(films["long"], "walk")
    first.wait("running")
    second.begin(films["long"], "wave")
    assert "Yours is the next one" in second.wait("waiting")
    second.shoot("waiting-390")
    second.page.get_by_role("button", name="Cancel").click()
    assert "Nothing of the video is kept" in second.wait("cancelled")
    second.begin(films["empty"], "wave")
    second.wait("waiting")
    first.page.get_by_role("button", name="Cancel").click()
    first.wait("cancelled")
    first.shoot("cancelled")
    assert "Nobody was found in this video" in second.wait("done")
    second.shoot("nobody-390")
    kept = os.listdir(server.files / "stclip-serve-jobs")
    assert second.token() in kept
    assert first.token() not in kept
    first.close()
    second.close()


def test_what_goes_wrong(browser: Any, server: Server, films: dict[str, Path]) -> None:
    tab = Tab(browser, server)
    tab.run()
    assert "There is no video yet" in tab.wait("refused")
    tab.page.locator("input[type=file]").first.set_input_files(films["large"])
    tab.page.get_by_text(re.compile("maximum|larger", re.IGNORECASE)).first.wait_for()
    tab.shoot("too-large")
    tab.page.reload()
    tab.page.wait_for_selector("#st-outcome[data-state=none]")
    for name in ("list", "broken"):
        tab.begin(films[name], "wave")
        text = tab.wait("failed")
        assert f"{name}.mp4: cannot be read as a video" in text
        assert str(server.files) not in text
        tab.shoot(name)
        note = tab.page.get_by_text("Your browser cannot show this film")
        assert note.is_visible()
        assert tab.page.get_by_text("not playable").count() == 0  # Gradio's own words
        tab.page.get_by_role("button", name="Clear").last.click()
        note.wait_for(state="hidden")
        tab.page.reload()
        tab.wait("failed")
        tab.page.goto(server.url)
        tab.wait("none")
    tab.close()


@pytest.mark.parametrize(
    ("field", "path"),
    [("video", "/etc/hostname"), ("video", "http://127.0.0.1:{port}/config"), ("video", "{log}"),
     ("text", "/etc/hostname"), ("text", "http://93.184.215.14/big.bin")],
)  # fmt: skip
def test_no_other_file_can_be_named_as_the_upload(server: Server, field: str, path: str) -> None:
    """By a request that no page would send."""
    path = path.format(port=server.url.rpartition(":")[2], log=server.log)
    with urllib.request.urlopen(f"{server.url}/config") as answer:
        config = json.load(answer)
    video = next(c["id"] for c in config["components"] if c["type"] == "video")
    begin = next(d for d in config["dependencies"] if video in d["inputs"])
    values = {c["id"]: c["props"].get("value") for c in config["components"]}
    data = [values[id] for id in begin["inputs"]]
    data[3] = "wave"  # after the token, the video and the address
    place = begin["inputs"].index(video) if field == "video" else 3
    data[place] = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": data, "fn_index": begin["id"], "session_hash": "a1", "trigger_id": None}
    urllib.request.urlopen(
        urllib.request.Request(
            f"{server.url}/gradio_api/queue/join", json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
    )  # fmt: skip
    with urllib.request.urlopen(f"{server.url}/gradio_api/queue/data?session_hash=a1") as events:
        said = next(line.decode() for line in events if b"process_completed" in line)
    assert '"success":false' in said or "Not started" in said, said
    assert not list((server.files / "stclip-serve-uploads").rglob(Path(path).name))


def test_five_users_at_once(
    browser: Any, server: Server, films: dict[str, Path], tmp_path: Path
) -> None:
    tabs, wait = [Tab(browser, server) for _ in range(5)], {}
    names = [f"user{number}.mp4" for number in range(5)]
    for tab, name in zip(tabs, names, strict=True):
        shutil.copy(films["some"], tmp_path / name)
        tab.fill(tmp_path / name, f"wave, act{name[4]}")
    for tab in tabs:
        tab.run()
        tab.wait("waiting", "running")
    begun, most = time.monotonic(), 0.0
    texts: dict[str, Sequence[str]] = {}
    while len(wait) < 5:
        most = max(most, server.memory())
        for tab, name in zip(tabs, names, strict=True):
            text = tab.page.inner_text("#st-outcome")
            texts[name] = [*texts.get(name, []), text]
            if name not in wait and name in text and "Download" in text:
                wait[name] = time.monotonic() - begun
        assert time.monotonic() - begun < 300
        time.sleep(0.1)
    print(f"\nseconds {json.dumps(wait)}, memory {most:.2f} GB")
    assert list(wait.values()) == sorted(wait.values())
    assert most < 3
    assert any("videos are before yours; it begins in about" in text for text in texts[names[4]])
    tokens = {tab.token() for tab in tabs}
    assert len(tokens) == 5
    for tab, name in zip(tabs, names, strict=True):
        others = [other for other in names if other != name]
        assert not any(other in text for text in texts[name] for other in others)
        actions = np.unique(re.findall(r"“(act\d)”", texts[name][-1])).tolist()
        assert actions == [f"act{name[4]}"]
        tab.close()
