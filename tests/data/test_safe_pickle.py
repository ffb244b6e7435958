import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from stclip.data.safe_pickle import load_pickle
from stclip.errors import UserError
from tests.helpers import shared_path

CONTENT = {
    "boxes": np.arange(10, dtype=np.float32).reshape(2, 5),
    "bytes": np.array([[1, 2]], dtype=np.uint8),
    "empty": np.zeros((0, 4)),
    "scalar": np.float32(0.5),
    "names": ["ä", ("b", 1, 2.5, None, True)],
    "set": {1, 2},
    "ordered": OrderedDict(a=1),
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return type(a) is type(b) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    assert same(load_pickle(path), CONTENT)


def test_array_of_python_2_and_an_old_numpy(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(
        b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntS'b'\ntRp2\n"
        b"(I1\n(I2\ntcnumpy\ndtype\np3\n(S'f4'\nI0\nI1\ntRp4\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntb."
    )
    assert same(load_pickle(path), np.array([1, 2], dtype=np.float32))


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", ["mkdir", "eval", "nested"])
def test_code_is_refused_and_not_run(tmp_path, call, protocol):
    witness = tmp_path / "made"
    attack = {
        "mkdir": Attack(os.mkdir, str(witness)),
        "eval": Attack(eval, f"__import__('os').mkdir({str(witness)!r})"),
        "nested": {"labels": [np.zeros(3), Attack(os.mkdir, str(witness))]},
    }[call]
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(attack, protocol=protocol))
    with pytest.raises(UserError, match="refused, nothing of it was run") as error:
        load_pickle(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not witness.exists()


def test_other_uses_of_what_is_allowed_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    for content in (
        b"c_codecs\nencode\n(Vabc\nVrot13\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(I0\ntS'b'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRS'x'\ntR.",
        b"cbuiltins\ngetattr\n(Vabc\nVupper\ntR.",
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="refused"):
            load_pickle(path)


def test_truncated_empty_and_absent_files(tmp_path):
    path = tmp_path / "a.pkl"
    whole = pickle.dumps(CONTENT)
    for content in (b"", whole[: len(whole) // 2], b"no pickle at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable pickle") as error:
            load_pickle(path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_pickle(tmp_path / "none.pkl")


def test_the_released_ground_truth():
    content = load_pickle(shared_path("annotations/jhmdb/JHMDB-GT.pkl"))
    assert len(content["gttubes"]) == 928
    assert sum(content["nframes"].values()) == 31852


READ = """
import sys
from stclip.data.safe_pickle import load_pickle
from stclip.errors import UserError
for path in sys.argv[1:]:
    try:
        load_pickle(path)
    except UserError as error:
        print(error)
"""
# Arrays of objects whose "pointers" are bytes of the file, made in two ways.
POINTERS = [
    b"cnumpy\nndarray\n((I1\ntS'O'\nc__builtin__\nbytearray\n(S'AAAAAAAA'\ntRtR.",
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    b"(I1\n(I1\ntcnumpy\ndtype\n(S'V8'\nI0\nI1\ntR(I3\nS'|'\nN(S'a'\nt(dS'a'\n"
    b"(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\ntbI00\nS'AAAAAAAA'\ntb.",
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    b"(I1\n(I9\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'AAAAAAAA'\ntb.",
]


@pytest.mark.slow
def test_arrays_never_reach_outside_their_bytes(tmp_path):
    paths = [tmp_path / f"{number}.pkl" for number in range(len(POINTERS))]
    for path, content in zip(paths, POINTERS, strict=True):
        path.write_bytes(content)
    command = [sys.executable, "-c", READ, *map(str, paths)]  # a process of its own: it might crash
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    refused = run.stdout.splitlines()
    assert [str(path) in line for path, line in zip(paths, refused, strict=True)] == [True] * 3


def test_big_endian_and_fortran_order(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(array, protocol=2))
    assert np.array_equal(load_pickle(path), array)
