"""What stclip serve refuses before it loads anything."""

import importlib.util
import socket
from pathlib import Path

import pytest

from stclip.errors import UserError
from tests.helpers import load_command


def refused(words: list[str], folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load_command("serve").main([*words, "--folder", str(folder)])
    assert not list(folder.iterdir())
    return str(error.value)


@pytest.fixture(autouse=True)
def gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_without_gradio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refused([], tmp_path).endswith('pip install "stclip[app]"')


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--weights", "none.pth"], "none.pth: no such file"),
        (["--clip", "puppet", "puppet"], "two of them have the same name"),
        (["--host", "no.such.host.invalid"], "cannot listen there"),
        (["--jobs", "0"], "1 or more expected"),
        (["--keep", "0"], "a number above 0 expected"),
    ],
)
def test_options_that_cannot_be(words: list[str], error: str, tmp_path: Path) -> None:
    assert error in refused(words, tmp_path)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"--port {port}: cannot listen there" in refused(["--port", port], tmp_path)
