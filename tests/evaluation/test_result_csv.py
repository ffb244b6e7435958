import gzip
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.errors import UserError
from stclip.evaluation import result_csv
from stclip.evaluation.result_csv import read_result_csv

GOOD = "sit/v,0001,1.50000,2.25000,30.00000,40.00000,2,0.25000"
LABELS = ["sit", "wave"]


def write(tmp_path, text, name="result.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(tmp_path, text, videos=None):
    return read_result_csv(write(tmp_path, text), LABELS, videos, "labels.txt")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_reads_rows(tmp_path, end, start):
    rows = read(tmp_path, start + GOOD + end + end + GOOD.replace("0001", "0012", 1))
    assert rows.keys == (("sit/v", 1), ("sit/v", 12))
    assert rows.frame.tolist() == [0, 1]
    assert rows.boxes.tolist() == [[1.5, 2.25, 30, 40]] * 2
    assert rows.labels.tolist() == [1, 1]  # 0-based
    assert rows.scores.tolist() == [0.25, 0.25]


def test_reads_gzip_by_content(tmp_path):
    path = write(tmp_path, gzip.compress(GOOD.encode(), mtime=0), "no suffix")
    assert len(read_result_csv(path, LABELS)) == 1


def test_an_empty_file_has_no_rows(tmp_path):
    assert len(read(tmp_path, "")) == 0


def test_frames_spelled_differently_are_one_frame(tmp_path):
    rows = read(tmp_path, GOOD + "\n" + GOOD.replace("0001", "1", 1))
    assert rows.keys == (("sit/v", 1),)
    assert rows.frame.tolist() == [0, 0]


def test_blocks_join(tmp_path, monkeypatch):
    monkeypatch.setattr(result_csv, "_BLOCK", 3)
    lines = [GOOD.replace("0001", f"{i:04d}", 1) for i in range(1, 11)]
    rows = read(tmp_path, "\n".join(lines))
    assert [rows.keys[i].frame for i in rows.frame] == list(range(1, 11))
    lines[7] = "rubbish"
    with pytest.raises(UserError, match=r"row 8: 1 columns"):
        read(tmp_path, "\n".join(lines))


BAD_ROWS = {
    "too few columns": (GOOD.rsplit(",", 1)[0], "7 columns, expected 8"),
    "too many columns": (GOOD + ",1", "9 columns, expected 8"),
    "cut short": (GOOD[:20], "columns, expected 8"),
    "no number": (GOOD.replace("2.25000", "abc"), "y1 is 'abc'"),
    "empty": (GOOD.replace("2.25000", ""), "y1 is ''"),
    "nan score": (GOOD.replace("0.25000", "nan"), "score is 'nan'"),
    "infinite box": (GOOD.replace("30.00000", "inf"), "x2 is 'inf'"),
    "too large": (GOOD.replace("30.00000", "1e999"), "x2 is '1e999'"),
    "label 0": (GOOD.replace(",2,", ",0,"), "label 0 is outside labels.txt"),
    "label 3": (GOOD.replace(",2,", ",3,"), "label 3 is outside labels.txt, which names 2"),
    "label huge": (GOOD.replace(",2,", f",{10**30},"), "is outside labels.txt"),
    "label name": (GOOD.replace(",2,", ",wave,"), "label is 'wave'"),
    "label 1.0": (GOOD.replace(",2,", ",1.0,"), "label is '1.0'"),
    "frame 0": (GOOD.replace("0001", "0000"), "frames count from 1"),
    "frame name": (GOOD.replace("0001", "00001.png"), "frame is '00001.png'"),
    "unknown video": (GOOD.replace("sit/v", "sit/vv"), "did you mean 'sit/v'"),
    "header": ("video,frame,x1,y1,x2,y2,label,score", "x1 is 'x1'"),
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_named(tmp_path, row, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path, f"{GOOD}\n\n{row}\n{GOOD}\n", {"sit/v"})
    assert "result.csv: row 3: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(GOOD.encode() * 100, mtime=0)[:-20], "damaged gzip"),
        (gzip.compress(GOOD.encode(), mtime=0)[:10] + b"\xff" * 30, "damaged gzip"),
        (b"\xff\xfe\x00rubbish", "not a UTF-8"),
        (b"\x80\x04\x95pickle", "not a UTF-8"),
        (b'"' + b"x" * 200_000, "not a csv"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read_result_csv(path, LABELS)


number = st.sampled_from(
    ["1", "0001", "0", "-1", "1.5", "2", "1_0", " 1", "1 ", "nan", "٣", "+2", "0x1", "1e3", "1e999"]
)
text = st.text(alphabet=st.characters(exclude_characters='\r\n",', codec="utf-8"), max_size=4)


@settings(max_examples=500)
@given(
    st.one_of(
        st.lists(st.tuples(text, *[number] * 7), min_size=1, max_size=2),
        st.lists(st.lists(number | text, min_size=7, max_size=9), min_size=1, max_size=2),
    )
)
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text("\n".join(",".join(row) for row in table), encoding="utf-8")
    problem = ""
    try:
        rows = read_result_csv(path, LABELS)
        assert ((rows.labels >= 0) & (rows.labels < 2)).all()
    except UserError as error:
        problem = str(error)
    assert not problem or ("any.csv" in problem and "\n" not in problem)
