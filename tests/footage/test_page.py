"""The page of a result, in a real browser."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stclip.footage.pipeline import Settings
from stclip.footage.records import Event, Footage
from stclip.footage.results import read_result, write_page
from tests.footage.make import drawn_frame, write_film
from tests.helpers import load_command

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra dev)")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium"),
]

EVENT, ROW, LINE = "#timeline .event", "#timeline .row", "#events tr"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab that must have nothing to complain about and must ask nobody for anything."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda r: None if r.url.startswith("file:///") else faults.append(r.url))
    yield page
    page.close()
    assert faults == []


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stclip detect leaves of a drawn video of two people."""
    folder = tmp_path_factory.mktemp("found")
    persons = [[(50.0 + 2 * n, 30.0, 110.0), (200.0, 40.0, 90.0)] for n in range(40)]
    film = write_film(folder / "film.mp4", [drawn_frame(240, 160, p) for p in persons])
    words = ["--actions", "walk", "wave", "sit", "--clip", "puppet", "--threshold", "0.2"]
    assert load_command("detect").main([str(film), *words, "--out", str(folder)]) == 0
    return folder / "film"


def seconds(page: Any) -> float:
    return page.evaluate("document.querySelector('video').currentTime")


def test_the_video_plays(page: Any, found: Path) -> None:
    page.goto((found / "index.html").as_uri())
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    assert page.evaluate("document.querySelector('video').videoWidth") == 240
    page.evaluate("{ const v = document.querySelector('video'); v.muted = true; v.play(); }")
    page.wait_for_function("document.querySelector('video').currentTime > 0.3")
    page.wait_for_function("parseFloat(document.getElementById('now').style.left) > 100")


def test_a_click_goes_to_the_event(page: Any, found: Path) -> None:
    result = read_result(found / "result.json")
    page.goto((found / "index.html").as_uri())
    events = [event for track in result.tracks.values() for event in track.events]
    assert len(result.tracks) == page.locator(ROW).count() == 2
    assert len(events) == page.locator(EVENT).count() == page.locator(LINE).count() >= 2
    for number, event in reversed(list(enumerate(events))):
        page.locator(EVENT).nth(number).click()
        assert seconds(page) == pytest.approx(event.start, abs=0.01)
    page.locator(LINE).last.click()
    assert seconds(page) == pytest.approx(max(event.start for event in events), abs=0.01)
    track = page.locator("#timeline .track").first
    box = track.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] - 1)
    assert seconds(page) == pytest.approx(2.0, abs=0.05)


def test_by_keyboard_alone(page: Any, found: Path) -> None:
    page.goto((found / "index.html").as_uri())
    reached: dict[str, float] = {}
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.getAttribute('aria-label') || ''")
        if focused.startswith(("person ", "go to ")):
            page.evaluate("document.querySelector('video').currentTime = 3.9")
            page.keyboard.press("Enter")
            reached[focused] = seconds(page)
    events = read_result(found / "result.json").events
    assert len(reached) == 2 * len(events)
    assert sorted(reached.values()) == pytest.approx(
        sorted(2 * [event.start for event in events]), abs=0.01
    )
    page.locator("#filters input").first.focus()
    page.keyboard.press("Space")
    assert "walk" not in page.locator(EVENT).all_text_contents()


ODD = ["</script><b>&amp;", "<img src=x onerror=alert(1)>", "يمشي ببطء", "a {{ b }}", "w" * 90]


def made(persons: int, events: int, duration: float = 600.0, actions: list[str] = ODD) -> Footage:
    """A result as of ``stclip detect``; the events go around persons and actions."""
    video = {"path": "/videos/<i>a</i>.mp4", "fps": 10.0, "last": duration - 0.1}
    footage = Footage("<i>a</i>", video, actions, ["<u>"], {}, asdict(Settings()), complete=True)
    for number in range(1, persons + 1):
        track = footage.track(number)
        for time in (0.0, duration - 0.1):
            track.add_box(time, round(time * 10) + 1, np.zeros(4, np.float32), 0.9)
        track.add_scores(0.0, np.zeros(len(actions) + 1, np.float32))
    for number in range(events):
        start = (number * 0.37 % 0.9) * duration
        action, score = actions[number % len(actions)], 0.5 + number / (2 * events)
        event = Event(number % persons + 1, action, start, start + 0.05 * duration, score)
        footage.track(event.track).events.append(event)
    return footage


@pytest.mark.parametrize("width", [390, 1100])
@pytest.mark.parametrize(
    "footage", [made(30, 40), made(1, 12), made(0, 0), made(3, 0), made(4, 9, 2712.0)]
)
def test_any_number_of_persons_events_and_letters_fits(
    page: Any, tmp_path: Path, width: int, footage: Footage
) -> None:
    write_page(tmp_path / "index.html", footage, None)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    persons, events = len(footage.tracks), footage.events
    assert (page.locator(ROW).count(), page.locator(LINE).count()) == (persons, len(events))
    assert page.locator("h1").inner_text() == "<i>a</i>"
    cells = page.locator(f"{LINE} td:nth-child(2)").all_inner_texts()
    assert sorted(cells) == sorted(event.action for event in events)
    assert page.locator("b, i, u, img").count() == 0
    assert page.locator("#timeline").is_visible() == bool(persons)
    assert page.locator("table").is_visible() == bool(events)
    if not events:
        text = "Nobody was found" if not persons else "No action reached the score"
        assert text in page.locator("#summary").inner_text()
    # Bars of one person lie apart, and inside of the person's row.
    for row in page.locator(ROW).all():
        frame = row.bounding_box()
        boxes = [bar.bounding_box() for bar in row.locator(".event").all()]
        for number, a in enumerate(boxes):
            assert frame["y"] < a["y"]
            assert a["y"] + a["height"] < frame["y"] + frame["height"]
            assert a["x"] + a["width"] <= frame["x"] + frame["width"] + 1
            for b in boxes[:number]:
                apart = a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
                assert apart or abs(a["y"] - b["y"]) >= 18


@pytest.mark.parametrize(
    ("duration", "ticks"),
    [
        (0.5, ["0:00.0", "0:00.1", "0:00.2"]),
        (10, ["0:00", "0:01", "0:02"]),
        (59.96, ["0:00", "0:05", "0:10"]),
        (2712, ["0:00", "5:00", "10:00"]),
        (3 * 3600, ["0:00", "15:00", "30:00"]),
        (30 * 3600, ["0:00", "6:00:00", "12:00:00"]),
    ],
)
def test_the_axis_has_round_times(
    page: Any, tmp_path: Path, duration: float, ticks: list[str]
) -> None:
    write_page(tmp_path / "index.html", made(1, 1, duration), None)
    page.goto((tmp_path / "index.html").as_uri())
    found = page.locator("#axis span").all_inner_texts()
    assert found[:3] == ticks
    assert 3 < len(found) < 16


def test_filters_and_sorting(page: Any, tmp_path: Path) -> None:
    footage = made(4, 12, actions=["walk", "wave"])
    write_page(tmp_path / "index.html", footage, None)
    page.goto((tmp_path / "index.html").as_uri())

    def column(number: int) -> list[str]:
        return page.locator(f"{LINE} td:nth-child({number})").all_inner_texts()

    events = footage.events
    assert column(2) == [event.action for event in events]
    for number, name in [(5, "score"), (1, "person"), (2, "action")]:
        head = page.locator("th", has_text=name)
        head.get_by_role("button").click()
        order = head.get_attribute("aria-sort")
        head.get_by_role("button").click()
        assert {order, head.get_attribute("aria-sort")} == {"ascending", "descending"}
        values = column(number)
        assert values == sorted(values, reverse=head.get_attribute("aria-sort") == "descending")
    page.get_by_role("checkbox", name="walk").uncheck()
    assert set(column(2)) == {"wave"}
    assert page.locator(EVENT).count() == 6
    assert "6 of 12 events" in page.locator("#summary").inner_text()
    assert page.locator(ROW).count() == 2  # of those who wave
    page.get_by_label("score at least").fill("0.75")
    assert sorted(map(float, column(5))) == [0.79, 0.88, 0.96]
    page.get_by_role("checkbox", name="walk").check()
    page.get_by_label("score at least").fill("0")
    assert len(column(1)) == 12
    assert page.locator(ROW).count() == 4
