import numpy as np

from stclip.evaluation.rows import DetectionRows
from stclip.evaluation.submission import AvaForm, write_ava_csv
from stclip.structures import FrameKey


def test_rows_by_hand(tmp_path):
    keys = (FrameKey("-v_1", 61), FrameKey("w", 31))
    rows = DetectionRows(
        keys=keys,
        frame=np.array([0, 0, 1, 0]),
        boxes=np.array([[32, 3.2, 96, 28.8]] * 2 + [[0, 0, 50, 100]] + [[64, 0, 128, 32]]),
        labels=np.array([0, 2, 1, 0]),
        scores=np.array([0.5, 0.12345, 1, 0.00001]),
    )
    form = AvaForm(
        seconds={keys[0]: 902, keys[1]: 1001},
        sizes={"-v_1": (128, 32), "w": (200, 100)},
        action_ids=[80, None, 1],
    )
    write_ava_csv(tmp_path / "a.csv", rows, form)
    assert (tmp_path / "a.csv").read_bytes() == (
        b"-v_1,0902,0.25000,0.10000,0.75000,0.90000,80,0.50000\r\n"
        b"-v_1,0902,0.25000,0.10000,0.75000,0.90000,1,0.12345\r\n"
        b"-v_1,0902,0.50000,0.00000,1.00000,1.00000,80,0.00001\r\n"
    )
