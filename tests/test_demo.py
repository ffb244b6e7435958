"""make demo, with a small CLIP on a server of ours in the place of the real one, and offline."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stclip.footage.results import read_result
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")

# What make takes for the installed program. It looks for the weights of ViT-B/16 on our server.
PROGRAM = """#!{python}
from stclip.models import weights
weights._OPENAI = "{address}"
weights._MODELS["ViT-B/16"] = weights._Model("ViT-B-16.pt", "{sha256}")
from stclip.commands import main
main()
"""
# Would leave a file if make or the shell took it for a command.
NAME = 'it\'s "mine" $(touch bad1) $(shell touch bad2) `touch bad3`; touch bad4'
ACTIONS = "fall down, wave,$(shell touch bad5),*"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def sha256(tmp_path: Path) -> str:
    """Of the weights that the server has."""
    weights = (REPOSITORY / "stclip/assets/puppet_clip.safetensors").read_bytes()
    found = hashlib.sha256(weights).hexdigest()
    file = tmp_path / "served" / found / "ViT-B-16.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(weights)
    return found


def demo(
    folder: Path, program: str, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Call make in a folder that is like a clone in which the program is installed."""
    shutil.copy(REPOSITORY / "Makefile", folder)
    (folder / ".venv/bin").mkdir(parents=True)
    for file in ("pyproject.toml", ".venv/bin/python", ".venv/installed"):
        (folder / file).touch()
    (folder / ".venv/bin/stclip").write_text(program)
    (folder / ".venv/bin/stclip").chmod(0o755)
    environment = {
        **os.environ, "STCLIP_CACHE": str(folder / "cache"), "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1", **variables,
    }  # fmt: skip
    environment.pop("MAKEFLAGS", None)  # of a make that runs the tests
    return subprocess.run(
        ["make", "demo", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def film(folder: Path, name: str) -> str:
    persons = ([(50.0 + 2 * n, 30.0, 110.0), (200.0, 40.0, 90.0)] for n in range(20))
    return write_film(folder / name, (drawn_frame(240, 160, p) for p in persons)).name


@pytest.mark.slow
def test_a_video_whose_name_and_actions_look_like_commands(
    tmp_path: Path, address: str, sha256: str
) -> None:
    program = PROGRAM.format(python=sys.executable, address=address, sha256=sha256)
    video = film(tmp_path, f"{NAME}.mp4")
    words = [f"VIDEO={video}", f"ACTIONS={ACTIONS}", "DETECT=--none-of 'sit down'"]
    done = demo(tmp_path, program, *words, no_proxy="*")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "output/detect" / NAME / "index.html"
    assert f"look at {page.relative_to(tmp_path)}" in done.stdout
    assert page.exists()
    found = read_result(page.with_name("result.json"))
    assert found.actions == ["fall down", "wave", "$(shell touch bad5)", "*"]
    assert found.none_of == ["sit down"]
    assert len(found.tracks) == 2
    assert (tmp_path / "cache/ViT-B-16.pt").exists()
    assert not list(tmp_path.rglob("bad*"))


@pytest.mark.slow
def test_offline_it_says_which_file_to_put_where(tmp_path: Path) -> None:
    program = f"#!{sys.executable}\nfrom stclip.commands import main\nmain()\n"
    words = [f"VIDEO={film(tmp_path, 'my.mp4')}", "ACTIONS=walk,wave"]
    done = demo(tmp_path, program, *words, https_proxy="http://127.0.0.1:9", no_proxy="")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"ViT-B-16.pt by hand and put it at {tmp_path / 'cache/ViT-B-16.pt'}" in line
    assert line.endswith("or give the file of any CLIP as clip (--clip FILE)")


@pytest.mark.parametrize("words", [[], ["VIDEO=my.mp4"], ["ACTIONS=walk", "VIDEO="]])
def test_it_asks_for_what_is_missing(tmp_path: Path, words: list[str]) -> None:
    done = demo(tmp_path, "", *words)
    assert done.returncode == 2
    assert 'make demo VIDEO=my.mp4 ACTIONS="walk,fall down"' in done.stderr
