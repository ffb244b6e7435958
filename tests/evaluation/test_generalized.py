import pytest

from stclip.evaluation.frame_map import frame_map
from stclip.evaluation.generalized import generalized
from stclip.evaluation.results import format_table
from tests.evaluation.make import annotated, rows

BOX, HALF = (0, 0, 10, 10), (0, 0, 10, 4)  # IoU 0.4
NAMES = ("seen", "unseen", "never", "other")


def example():
    """Of ``seen`` one of two boxes is found, ``unseen`` after a false positive, ``other`` loosely.

    Average precisions at 0.2 and 0.5: 0.5 and 0.5; 0.5 and 0.5; 1 and 0; ``never`` has none.
    """
    truth = [
        annotated("v", 1, (BOX, "seen", "other")),
        annotated("v", 2, (BOX, "seen"), ((50, 50, 60, 60), "unseen")),
    ]
    found = rows(
        ("v", 1, BOX, 0, 0.9),
        ("v", 1, BOX, 1, 0.8),
        ("v", 2, (50, 50, 60, 60), 1, 0.7),
        ("v", 1, HALF, 3, 0.6),
        ("v", 1, BOX, 2, 0.5),
    )
    return frame_map(truth, found, NAMES, [0.2, 0.5])


def test_means_by_hand():
    metrics = generalized(example(), ["unseen", "never"])
    assert metrics["frame_mAP@0.5"] == 50
    assert metrics["frame_mAP_seen@0.5"] == 25  # (50 + 0) / 2
    assert metrics["frame_mAP_all@0.5"] == pytest.approx(100 / 3)
    assert metrics["H"] == metrics["H@0.5"] == pytest.approx(100 / 3)  # 2 * 50 * 25 / 75
    assert metrics["frame_mAP_seen@0.2"] == 75
    assert metrics["H@0.2"] == pytest.approx(60)
    assert metrics["unseen"] == ["unseen", "never"]


def test_what_was_there_stays():
    before = example()
    copy = dict(before)
    after = generalized(before, ["unseen"])
    assert before == copy
    for name in ("per_class@0.5", "ground_truth_boxes", "rows", "iou_thresholds"):
        assert after[name] == before[name]


@pytest.mark.parametrize(
    ("unseen", "of_unseen", "of_seen"),
    [(["never"], None, 100 / 3), (NAMES, 100 / 3, None), ([], None, 100 / 3)],
)
def test_a_side_without_ground_truth_has_no_mean(unseen, of_unseen, of_seen):
    metrics = generalized(example(), unseen)
    assert metrics["frame_mAP@0.5"] == pytest.approx(of_unseen)
    assert metrics["frame_mAP_seen@0.5"] == pytest.approx(of_seen)
    assert metrics["H"] is None


def test_both_zero():
    truth = [annotated("v", 1, (BOX, "a", "b"))]
    metrics = generalized(frame_map(truth, rows(), ("a", "b"), [0.75]), ["b"])
    assert metrics["H"] == metrics["H@0.75"] == 0


def test_table():
    assert format_table(generalized(example(), ["unseen", "never"])).splitlines() == [
        "class            boxes  AP@0.2  AP@0.5",
        "--------------------------------------",
        "seen                 2   50.00   50.00",
        "unseen (unseen)      1   50.00   50.00",
        "never (unseen)       0       -       -",
        "other                1  100.00    0.00",
        "--------------------------------------",
        "mean unseen          1   50.00   50.00",
        "mean seen            3   75.00   25.00",
        "mean all             4   66.67   33.33",
        "H                        60.00   33.33",
    ]
