import base64
import io
import math
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from stclip.evaluation.report import (
    BarRow,
    BarTable,
    ClipView,
    PersonVerdict,
    Report,
    render_report,
)
from stclip.evaluation.report_charts import Curve, line_chart, nice_ceiling, running_mean
from stclip.evaluation.report_pictures import (
    COLOURS,
    animation_data,
    mark_persons,
    picture_data,
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
        "✓ named rightly",
        "✗ named wrongly",
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
    assert not re.search(r"https?:|url\(|@import", page)


def test_pictures_have_words():
    checker = parsed(render_report(report()))
    alt = dict(checker.attributes)["alt"]
    assert "A: does walk, rightly named walk" in alt
    assert "B: does sit, wrongly named walk" in alt
    assert "C: does walk" in alt
    label = dict(checker.attributes)["aria-label"]
    assert label == "walk: 3 at first, 1 at iteration 3"


def test_a_page_without_clips_and_curves():
    page = render_report(Report("t", "l", BarTable("m", ("c",), [BarRow("r", (1.0,))])))
    parsed(page)
    assert "Training" not in page


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


@pytest.mark.parametrize("verdict", [True, False, None])
def test_boxes_are_drawn_enlarged(verdict):
    plain = Image.new("RGB", (60, 50), (255, 255, 255))
    marked = mark_persons(plain, [((20, 20, 40, 45), "A", verdict)], scale=2)
    assert marked.size == (120, 100)
    assert marked.getpixel((80, 70)) == COLOURS[verdict]  # the right edge
    assert marked.getpixel((60, 70)) == (255, 255, 255)  # inside
    assert marked.getpixel((41, 26)) == COLOURS[verdict]  # the tag stands above the corner
    assert marked.getpixel((10, 10)) == (255, 255, 255)


def test_boxes_beyond_the_frame():
    marked = mark_persons(picture(), [((-5, -5, 500, 500), "A", True), ((20, 20, 1, 1), "B", None)])
    assert marked.size == (32, 24)


@pytest.mark.parametrize(
    ("value", "ceiling"),
    [(0.7, 1), (1, 1), (1.1, 2), (3.2, 4), (4.5, 5), (37, 40), (0.03, 0.04), (0, 1)],
)
def test_nice_ceiling(value, ceiling):
    assert nice_ceiling(value) == pytest.approx(ceiling)


def test_running_mean():
    assert running_mean([1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]  # too few to be averaged
    values = [float(i % 2) for i in range(30)]
    means = running_mean(values)  # two neighbours to either side
    assert means[10] == pytest.approx(2 / 5)
    assert means[0] == pytest.approx(1 / 3)


def test_a_chart_places_its_values():
    chart = line_chart(Curve("loss", [0, 50, 100], [4.0, 2.0, 0.0]))
    (points,) = re.findall(r"class=smooth points='([^']+)'", chart)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y1 - y0 == pytest.approx(y2 - y1)
    assert y0 < y2  # pixels count downwards
    assert ">4<" in chart


def test_a_chart_of_nothing_finite():
    assert "No values" in line_chart(Curve("loss", [1, 2], [math.nan, math.inf]))
