import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from stclip.evaluation.charts import Curve, growth_chart, line_chart, running_mean


def test_running_mean():
    assert running_mean([1.0, 5.0, 3.0]) == [1.0, 5.0, 3.0]  # too few to be averaged
    means = running_mean([float(i % 2) for i in range(30)])  # two neighbours to either side
    assert means[10] == pytest.approx(2 / 5)
    assert means[0] == pytest.approx(1 / 3)


def test_a_line_chart_is_an_element_in_the_colours_of_its_page():
    chart = line_chart(Curve("loss & <more>", [0, 50, 100], [4.0, math.nan, 0.0]))
    ElementTree.fromstring(chart.replace("xlink:href", "href"))
    assert 'aria-label="loss &amp; &lt;more&gt;: 4 at first, 0 at iteration 100"' in chart
    assert {"var(--main)", "var(--soft)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", chart))
    assert not re.search(r'https?:|id="(figure|axes|text)', chart)
    assert ">iteration</text>" in chart  # a text, not outlines
    (strong,) = re.findall(
        r'<path d="M ([\d.]+) ([\d.]+) \s*L ([\d.]+) ([\d.]+)[^>]+width: 2', chart
    )
    x0, y0, x1, y1 = map(float, strong)
    assert x0 < x1
    assert y0 < y1  # pixels count downwards


@pytest.mark.parametrize("values", [[], [math.nan, math.inf]])
def test_a_chart_of_nothing_finite_is_empty(values):
    assert line_chart(Curve("loss", range(len(values)), values)) == ""


def test_growth_chart():
    points = [{"x": x, "u": 2.0 * x, "memory_mb": 1000.0} for x in (1, 2, 4)]
    curves = [
        {"name": name, "points": points, "u_slope": 1.0, "memory_mb_each": 0.25}
        for name in ("persons", "classes")
    ]
    chart = growth_chart(curves)
    assert chart == growth_chart(curves)
    space = "{http://www.w3.org/2000/svg}"
    svg = ElementTree.fromstring(chart)
    texts = [text.text for text in svg.iter(f"{space}text")]
    assert {"u over persons: slope +1.00", "MB over classes: +0.250 each"} <= set(texts)
    assert texts.count("4") >= 4
    axes = [g for g in svg.iter(f"{space}g") if re.fullmatch(r"axes_\d", g.get("id", ""))]
    assert len(axes) == 4


def test_only_what_draws_imports_matplotlib():
    code = "import sys, stclip.evaluation.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
