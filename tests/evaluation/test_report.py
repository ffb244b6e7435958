import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from stclip.evaluation.charts import Curve
from stclip.evaluation.report import (
    BarRow,
    BarTable,
    ClipView,
    PersonVerdict,
    Report,
    animation_data,
    picture_data,
    render_report,
)

EVIL = "<script>alert('x')</script> & \"more\""
VOID = {"meta", "img", "source", "br"}


class Checker(HTMLParser):
    """Collects tags, attributes and text, and sees that what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def picture(shade=0, size=(16, 12)):
    return Image.new("RGB", size, (shade, 100, 50))


def report(word="walk"):
    persons = [
        PersonVerdict("A", word, [(word, 0.75), ("run", 0.2)], True, "right in 3 of 4 frames"),
        PersonVerdict("B", "sit", [(word, 0.6), ("sit", 0.4)], False),
        PersonVerdict("C", word, (), None, word),
    ]
    return Report(
        title=word,
        lead=word,
        methods=BarTable(word, (word, "seen"), [BarRow(word, (12.34, None), strong=True)], word),
        clips=[ClipView(word, [picture(0), picture(80)], persons)],
        clips_note=word,
        curves=[Curve(word, [1, 2, 3], [3.0, 2.0, 1.0])],
        classes=BarTable("class", (word,), [BarRow(word, (99.96,))], strong_column=word),
        facts=[("command", word)],
        terms=[(word, word)],
    )


def parsed(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_is_well_formed_and_says_what_it_was_given():
    checker = parsed(render_report(report()))
    text = " ".join(checker.text)
    for expected in (
        "12.3",
        "100.0",
        "75 %",
        "✓ correct",
        "✗ wrong",
        "right in 3 of 4 frames",
    ):
        assert expected in text
    assert "–" in text  # what was not measured


def test_every_text_is_escaped():
    page = render_report(report(EVIL))
    checker = parsed(page)
    assert "script" not in checker.tags
    assert not [name for name, _ in checker.attributes if name.startswith("on")]
    assert EVIL in checker.text
    assert "<script" not in page
    alt = dict(checker.attributes)["alt"]
    assert alt.count(EVIL) >= 3


def test_it_needs_nothing_from_outside():
    page = render_report(report())
    checker = parsed(page)
    links = [value for name, value in checker.attributes if name in ("src", "srcset", "href")]
    assert links
    assert all(link.startswith("data:image/") for link in links)
    assert not re.search(r"https?:|url\((?!#)|@import", page)


def test_pictures_have_words():
    attributes = dict(parsed(render_report(report())).attributes)
    alt = " ".join(attributes["alt"].split())
    assert "A: walk, named walk (correct). B: sit, named walk (wrong). C: walk." in alt
    assert attributes["aria-label"] == "walk: 3 at first, 1 at iteration 3"


def test_a_page_without_clips_and_curves():
    table = BarTable("m", ("c",), [BarRow("r", (1.0,))])
    page = render_report(Report("t", "l", table))
    parsed(page)
    assert page.startswith("<!doctype html>")
    assert "Training" not in page
    page = render_report(Report("t", "l", table, curves=[Curve("loss", [1], [float("nan")])]))
    assert "No values were recorded" in page


def decoded(url):
    kind, _, data = url.partition(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_an_animation_holds_all_its_frames():
    kind, image = decoded(animation_data([picture(0), picture(90), picture(180)], 80))
    assert kind == "data:image/gif"
    assert (image.n_frames, image.size, image.info["duration"]) == (3, (16, 12), 80)
    for number, shade in enumerate((0, 90, 180)):
        image.seek(number)
        assert image.convert("RGB").getpixel((5, 5)) == pytest.approx((shade, 100, 50), abs=3)


def test_a_still_picture():
    kind, image = decoded(picture_data(picture(10)))
    assert kind == "data:image/png"
    assert image.convert("RGB").getpixel((0, 0)) == pytest.approx((10, 100, 50), abs=3)
