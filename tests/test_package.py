"""The wheel has everything that commands need outside a clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

pytest.importorskip("setuptools")


@pytest.mark.slow
def test_the_wheel_has_all_files_and_the_program(tmp_path: Path) -> None:
    # Called directly: pip would fetch setuptools for an environment of its own.
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in listed:
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True)
    (wheel,) = tmp_path.glob("stclip-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = (archive.read(name) for name in names if name.endswith("/entry_points.txt"))
    assert b"stclip = stclip.commands:main" in entry
    package = {name for name in listed if name.startswith("stclip/") and (source / name).is_file()}
    assert package <= names
    shipped = {
        f"stclip/shipped/{name}"
        for name in listed
        if name.startswith(("configs/", "data/label_splits/")) and name.endswith((".yaml", ".txt"))
    }
    assert len(shipped) > 60
    assert shipped <= names
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]
