import math
import random

import pytest

from stclip.puppet.draw.chance import Chance
from stclip.puppet.draw.figure import SOLE, Build, bend, place_joints, pose

BUILD = Build(head=0.09, torso=0.29, arm=0.17, leg=0.24, girth=1.0)
LIMBS = (("shoulder", "elbow", "hand", 0.17), ("hip", "knee", "foot", 0.24))


def test_bend_folds_a_limb_to_the_asked_side() -> None:
    # Two parts of 5 reach 8 far: the middle joint is 3 beside the way there.
    assert bend((0, 0), (0, -8), 5, 1) == (pytest.approx((3, -4)), pytest.approx((0, -8)))
    assert bend((0, 0), (0, -8), 5, -1) == (pytest.approx((-3, -4)), pytest.approx((0, -8)))
    assert bend((1, 1), (9, 1), 5, 1) == (pytest.approx((5, 4)), pytest.approx((9, 1)))


def test_bend_points_at_what_is_too_far_and_survives_no_distance() -> None:
    middle, end = bend((0, 0), (30, 40), 1, 1)
    assert end == pytest.approx((1.2, 1.6), abs=0.01)
    assert math.dist(middle, end) == pytest.approx(1)
    assert all(map(math.isfinite, (*bend((2, 3), (2, 3), 1, 1)[0], *bend((2, 3), (2, 3), 1, 1)[1])))


def test_somebody_upright_is_as_tall_as_the_parts() -> None:
    straight = pose(near=(0, 0), far=(0, 0), legs=(0, 0, 0, 0))
    joints = place_joints(straight, BUILD, front=False, planted=False)
    assert joints.near_foot[1] == pytest.approx(SOLE)
    assert joints.near_knee[1] == pytest.approx(SOLE + 0.24)
    assert joints.hip == pytest.approx((0, SOLE + 0.48))
    assert joints.neck == pytest.approx((0, SOLE + 0.48 + 0.29))
    assert joints.head[1] == pytest.approx(SOLE + 0.48 + 0.29 + 0.11)


def test_angles_point_the_way_the_figure_faces() -> None:
    joints = place_joints(pose(near=(90, 180), lean=90), BUILD, front=False, planted=False)
    assert joints.neck == pytest.approx((0.29, joints.hip[1]))  # face down
    ahead = joints.near_elbow[0] - joints.near_shoulder[0]
    assert ahead == pytest.approx(0.17)
    assert joints.near_hand[1] - joints.near_elbow[1] == pytest.approx(0.17)


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("planted", [False, True])
def test_any_pose_keeps_lengths_and_stands_on_the_ground(front: bool, planted: bool) -> None:
    rng = random.Random(0)
    for _ in range(50):
        angles = [rng.uniform(-180, 180) for _ in range(8)]
        near, far, legs = (angles[0], angles[1]), (angles[2], angles[3]), tuple(angles[4:])
        drawn = pose(near, far, legs, lean=rng.uniform(-90, 90), lift=0.2, x=0.5)  # type: ignore[arg-type]
        joints = place_joints(drawn, BUILD, front, planted)
        assert min(y for _, y in joints[:15]) == pytest.approx(0.2 + SOLE)
        for side in ("near", "far"):
            for upper, middle, end, length in LIMBS:
                a, b, c = (getattr(joints, f"{side}_{name}") for name in (upper, middle, end))
                assert math.dist(a, b) == pytest.approx(length)
                assert math.dist(b, c) == pytest.approx(length)
        feet = (joints.near_foot[0] + joints.far_foot[0]) / 2
        assert (feet if planted else joints.hip[0]) == pytest.approx(0.5)


def test_builds_differ_and_are_one_figure_height_tall() -> None:
    builds = [Build.draw(Chance(random.Random(seed))) for seed in range(20)]
    assert len(set(builds)) == 20
    for build in builds:
        tall = 2 * build.leg + build.torso + 2 * build.head
        assert tall == pytest.approx(0.945)


def test_chance_uses_nothing_but_random() -> None:
    class Fixed(random.Random):
        def random(self) -> float:
            return 0.75

        def getrandbits(self, k: int) -> int:
            raise AssertionError("not stable across versions")

    chance = Chance(Fixed())
    assert chance.uniform(2, 4) == 3.5
    assert chance.below(4) == 3
    assert chance.choice("abcd") == "d"
    assert chance.happens(0.8)
    assert not chance.happens(0.7)
    assert chance.shuffled("abcd") == ["d", "c", "b", "a"]
    assert chance.near((0, 100, 255), 10) == (5, 105, 255)
