"""The wheel has what commands need outside a clone; the source archive has all of the clone."""

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

import stclip
from tests.helpers import REPOSITORY


def test_the_citation_has_the_version() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert re.findall("^version: (.+)$", citation, flags=re.MULTILINE) == [stclip.__version__]


@pytest.mark.slow
@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs a clone")
def test_the_archives_have_all_files_and_the_program(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    source = tmp_path / "source"
    tracked, new = listed("--cached"), listed("--others", "--exclude-standard")
    for name in tracked | new:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    # Called directly: pip would fetch hatchling for an environment of its own.
    build = (
        "import sys, hatchling.build as b; b.build_sdist(sys.argv[1]); b.build_wheel(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True)

    (sdist,) = tmp_path.glob("stclip-*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked <= files
    assert files <= tracked | new | {"PKG-INFO"}

    (wheel,) = tmp_path.glob("stclip-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = (archive.read(name) for name in names if name.endswith("/entry_points.txt"))
    assert b"stclip = stclip.commands:main" in entry
    shipped = below(tracked, "configs/", "data/label_splits/")
    assert len(shipped) > 60
    assert {f"stclip/shipped/{name}" for name in shipped} | below(tracked, "stclip/") <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"stclip"}
    texts = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert texts == {"LICENSE", "NOTICE", *below(tracked, "licenses/")}


def listed(*which: str) -> set[str]:
    """Files of the clone that are there."""
    command = ["git", "ls-files", "-z", *which]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if (REPOSITORY / name).is_file()}


def below(names: Iterable[str], *folders: str) -> set[str]:
    return {name for name in names if name.startswith(folders)}
