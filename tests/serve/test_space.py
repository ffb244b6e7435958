"""app.py and spaces/: a Space of Hugging Face."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.helpers import REPOSITORY

SPACE = REPOSITORY / "spaces"


def test_the_header_is_one_of_a_space() -> None:
    _, header, text = (SPACE / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["sdk"], facts["app_file"]) == ("gradio", "app.py")
    assert re.fullmatch(r"6\.\d+\.\d+", facts["sdk_version"])
    assert re.fullmatch(r"3\.1\d", facts["python_version"])
    assert len(facts["short_description"]) <= 60
    copied = re.findall(r"cp -r (.+) space/", text)[0].split()
    assert all((REPOSITORY / name).exists() for name in copied)


def test_requirements_are_those_of_the_package() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[$(.+?)^\]$", text, re.M | re.S)
    needed = re.findall(r'^    "(.+?)",', block, re.M)
    lines = (SPACE / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == needed


@pytest.mark.slow
def test_a_space_starts(tmp_path: Path) -> None:
    """With nothing but what its README says is copied."""
    pytest.importorskip("gradio", reason="needs gradio (extra app)")
    for name in ("app.py", "spaces/README.md", "spaces/requirements.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(REPOSITORY / "stclip", tmp_path / "stclip")
    environment = {
        **os.environ, "PYTHONPATH": "", "GRADIO_SERVER_PORT": "0", "HOME": str(tmp_path),
        "STCLIP_SERVE": "--clip puppet",
    }  # fmt: skip
    films = tmp_path / ".cache/stclip/serve/films"
    films.mkdir(parents=True)
    for name in ("waving", "clapping"):  # as if they had been drawn
        (films / f"{name}.tubes.json").touch()
    server = subprocess.Popen(
        [sys.executable, "app.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        found = next(line for line in server.stdout if line.startswith("open "))
        address = re.findall(r"http://\S+", found)[0].replace("0.0.0.0", "127.0.0.1")
        with urllib.request.urlopen(address, timeout=20) as page:
            assert "Who does what when" in page.read().decode()
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 143
