"""What pages and comments refer to is there: files, config keys, options, sections."""

import re
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest

import stclip
from stclip.config import get_cfg_defaults
from stclip.footage.events import EventRule
from stclip.footage.pipeline import Settings
from stclip.models import weights
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY, load_command

PAGES = ("docs/method.md", "docs/evaluation.md")
FOLDERS = "stclip|tools|configs|tests|docs|benchmarks|data/label_splits"
TITLED = re.compile(r"""(\w+\.md)`?(?:,| \()\s?(["'])(.+?)\2""")
SECTIONS = re.compile(r"method\.md sections? (\d+(?:(?:, | to | and )\d+)*)")


def read(page: str | Path) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def headings(page: str | Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)


def code_spans(page: str) -> list[str]:
    return re.findall(r"`([^`]+)`", read(page))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def sources() -> Iterator[tuple[Path, str]]:
    """Code and pages, each as one line without the signs of comments."""
    found = [*REPOSITORY.glob("*.md")]
    for folder, kind in (("docs", "md"), ("stclip", "py"), ("tools", "py"), ("configs", "yaml")):
        found += (REPOSITORY / folder).rglob(f"*.{kind}")
    for path in sorted(found):
        yield path, re.sub(r"\s*\n[\s#]*", " ", read(path))


@pytest.mark.parametrize("page", PAGES)
def test_files_of_a_page_exist(page: str) -> None:
    named = re.findall(rf"(?<![\w/])(?:{FOLDERS})/[\w./-]*\w", read(page))
    assert len(named) > 17
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
    for target in re.findall(r"\]\(([^)]+)\)", read(page)):
        path, _, heading = target.partition("#")
        if path.startswith("https:"):
            continue
        other = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert other.exists(), target
        assert not heading or heading in map(anchor, headings(other)), target


@pytest.mark.parametrize("page", PAGES)
def test_config_keys_of_a_page_exist(page: str) -> None:
    keys = {
        key
        for span in code_spans(page)
        for key in re.findall(r"(?<![\w./-])[A-Z][A-Z\d]*(?:[._][A-Z\d]+)+(?![\w/-])", span)
    }
    assert len(keys) > 5
    for key in keys:
        reduce(getitem, key.split("."), get_cfg_defaults())  # KeyError: there is no such key


def test_every_section_of_the_method_names_its_files_and_keys() -> None:
    _, *sections = re.split(r"^## ", read("docs/method.md"), flags=re.MULTILINE)
    for section in sections:
        assert re.search(r"^- Code: `", section, flags=re.MULTILINE), section[:40]
        assert re.search(r"^- Keys: `", section, flags=re.MULTILINE), section[:40]


def test_options_of_the_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    page = read("docs/evaluation.md").replace("\\\n", " ")
    commands = re.findall(r"^    stclip (\w+) (.+)$", page, flags=re.MULTILINE)
    assert {words.split()[0] for tool, words in commands if tool == "evaluate"} == {
        "frame-map", "video-map", "ava", "vote"
    }  # fmt: skip
    for tool, words in commands:
        command = words.split()[:1] if tool == "evaluate" else []
        with pytest.raises(SystemExit):
            load_command(tool).main([*command, "--help"])
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert set(re.findall(r"--[\w-]+", words)) <= known, words


def test_the_snippet_for_own_videos_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [
        block
        for block in re.findall(r"(?ms)^```python\n(.+?)^```", read("README.md"))
        if "stclip.detect(" in block
    ]
    small = weights.load_clip("puppet")  # in the place of a download
    monkeypatch.setattr("stclip.footage.detect.load_towers", lambda name: small)
    certain = Settings(events=EventRule(threshold=0.0))  # whatever it makes of the drawing
    monkeypatch.setattr("stclip.footage.detect.Settings", lambda: certain)
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "party.mp4", [drawn_frame(240, 160, [(100.0, 30.0, 110.0)])] * 8)
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert sum("persons [1]" in line for line in lines) == 8
    assert sum(bool(re.match(r"person 1: \w.* from 0.\d to 0.\d s$", line)) for line in lines) == 2
    assert (tmp_path / "output/party/index.html").exists()


def test_what_belongs_to_an_item_of_a_list_is_indented_by_four() -> None:
    """GitHub is content with fewer; the site's Markdown then ends the list."""
    pages = [
        path for folder in ("", "docs", "benchmarks") for path in (REPOSITORY / folder).glob("*.md")
    ]
    for page in pages:
        text = re.sub(r"(?ms)^```.+?^```", "", read(page))
        assert re.findall(r"\n\n((?: {1,3}| {5,7})\S.+)", text) == [], page


def test_the_page_of_the_api_has_every_public_name() -> None:
    shown = re.findall(r"^::: stclip\.(\w+)$", read("docs/api.md"), flags=re.MULTILINE)
    assert sorted(shown) == sorted(set(stclip.__all__) - {"__version__"})


def test_cited_sections_of_the_method_exist() -> None:
    numbers = {int(n) for n in re.findall(r"^## (\d+)\. ", read("docs/method.md"), re.MULTILINE)}
    assert numbers == set(range(1, 11))
    cited = 0
    for path, text in sources():
        for words in SECTIONS.findall(text):
            found = [int(number) for number in re.findall(r"\d+", words)]
            cited += 1
            assert set(found) <= numbers, f"{path}: {words}"
    assert cited > 11


def test_cited_pages_and_titles_exist() -> None:
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    titles = {page.name: headings(page) for page in pages}
    cards = {path.name for path in (REPOSITORY / "stclip").rglob("*.md")}
    cited = 0
    for path, text in sources():
        for page, _, title in TITLED.findall(text):
            cited += 1
            assert any(known.startswith(title) for known in titles[page]), f"{path}: {page} {title}"
        if path.suffix != ".md" and path.parent.name != "commands":  # those name what they write
            unknown = set(re.findall(r"\b\w+\.md\b", text)) - titles.keys() - cards
            assert not unknown, f"{path}: {unknown}"
    assert cited > 11
