"""tools/convert_nanodet.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stclip.errors import UserError
from tests.footage.published import load_script, published_folder
from tests.helpers import REPOSITORY


def test_the_shipped_file_is_what_the_script_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = load_script(), tmp_path / "new" / "nanodet.safetensors"
    assert script.main([str(published_folder()), "--out", str(out)]) == 0
    assert out.read_bytes() == script.ASSET.read_bytes()
    assert "3786068 parameters in 68 tensors\nSHA-256 9aa88287f7406cf7" in capsys.readouterr().out


def test_other_files_are_refused(tmp_path: Path) -> None:
    script, out = load_script(), tmp_path / "out.safetensors"
    with pytest.raises(UserError, match=r"nanodet\.json: cannot be read"):
        script.main([str(tmp_path), "--out", str(out)])
    (tmp_path / "nanodet.json").write_text("{}")
    with pytest.raises(UserError, match=r"SHA-256 44136fa3\w+ found, 4495eb0e\w+ expected"):
        script.main([str(tmp_path), "--out", str(out)])
    assert not out.exists()


def test_unpack() -> None:
    half = {"dtype": "float16", "original_dtype": "float32"}
    manifest = [
        {"name": "kernel", "shape": [2, 1], "dtype": "float32", "quantization": half},
        {"name": "axis", "shape": [], "dtype": "int32"},
        {"name": "none", "shape": [0, 1], "dtype": "int32"},
        {"name": "scale", "shape": [1], "dtype": "float32"},
    ]
    parts = [np.array([1.5, -2], "<f2"), np.array(3, "<i4"), np.array([0.1], "<f4")]
    content = b"".join(part.tobytes() for part in parts)
    tensors = load_script().unpack(manifest, content)
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "kernel": [[1.5], [-2.0]],
        "axis": 3,
        "none": [],
        "scale": [pytest.approx(0.1)],
    }
    assert [t.dtype for t in tensors.values()] == [
        torch.float32,
        torch.int32,
        torch.int32,
        torch.float32,
    ]
    with pytest.raises(AssertionError, match="does not cover"):
        load_script().unpack(manifest[:2], content)


@pytest.mark.slow
def test_it_is_a_script(tmp_path: Path) -> None:
    words = [sys.executable, str(REPOSITORY / "tools" / "convert_nanodet.py"), "absent"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: absent/nanodet.json: cannot be read")
