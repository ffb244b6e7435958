"""Those of the 21 actions that are no ball games and need no weapons."""

from stclip.puppet.draw import adjust, props
from stclip.puppet.draw.figure import pose
from stclip.puppet.draw.gaits import APART, BRISK, JOG, PUSHING, RUN, STRIDE, WALK
from stclip.puppet.draw.motion import Action, Key, Motion

_SEATED = pose((20, 72), (16, 68), (84, 4, 87, 8), lean=4)
_RISEN = pose((6, 12), (-4, 6), (2, 0, -2, -3))
_SITTING_DOWN: tuple[Key, ...] = (
    (0.0, _RISEN),
    (0.22, _RISEN),
    (0.5, pose((40, 60), (35, 55), (62, -18, 58, -20), lean=38)),
    (0.72, _SEATED._replace(lean=16)),
    (0.85, _SEATED),
    (1.0, _SEATED),
)

EVERYDAY = (
    Action(
        "brush_hair",
        (
            Motion(
                keys=((0.0, pose()), (0.5, pose(nod=8))),
                cycle=(12, 18),
                adjust=adjust.brush,
                before=props.hairbrush,
            ),
        ),
        hair_shows=True,
    ),
    Action(
        "clap",
        (
            Motion(
                keys=((0.0, pose()), (0.5, pose(lean=4))), cycle=(7, 11), adjust=adjust.clap_ahead
            ),
            Motion(
                keys=(
                    (0.0, pose((25, 184), (-25, -184), APART)),
                    (0.5, pose((25, 235), (-25, -235), APART)),
                ),
                cycle=(7, 11),
                front=True,
                tempers=(0.97, 1.03),
            ),
        ),
    ),
    Action(
        "climb_stairs",
        (
            Motion(
                keys=(
                    (0.0, pose((30, 60), (-24, 0), lean=9)),
                    (0.25, pose((-24, 0), (30, 60), lean=9)),
                    (0.5, pose((30, 60), (-24, 0), lean=9)),
                    (0.75, pose((-24, 0), (30, 60), lean=9)),
                    (1.0, pose((30, 60), (-24, 0), lean=9)),
                ),
                adjust=adjust.climb,
                behind=props.stairs,
                room=1.5,
                top=1.45,
            ),
        ),
    ),
    Action(
        "jump",
        (
            Motion(
                keys=(
                    (0.0, pose((-42, -28), (-48, -32), (58, -48, 52, -54), lean=34)),
                    (0.26, pose((120, 140), (112, 132), (6, -10, 2, -14), lean=4)),
                    (0.48, pose((150, 165), (142, 158), (18, -24, 12, -32), lift=0.3)),
                    (0.74, pose((70, 90), (62, 82), (12, -12, 8, -16), lean=8)),
                ),
                cycle=(16, 24),
                planted=True,
                top=1.3,
            ),
            Motion(
                keys=(
                    (0.0, pose((16, 10), (-16, -10), (9, -9, -9, 9))),
                    (0.22, pose((60, 70), (-60, -70), (7, 5, -7, -5))),
                    (0.5, pose((142, 156), (-142, -156), (30, 24, -30, -24), lift=0.22)),
                    (0.78, pose((60, 70), (-60, -70), (7, 5, -7, -5))),
                ),
                cycle=(14, 20),
                front=True,
                top=1.25,
            ),
        ),
    ),
    Action(
        "pick",
        (
            Motion(
                keys=(
                    (0.0, pose(legs=STRIDE)),
                    (0.12, pose(legs=STRIDE)),
                    (0.4, pose((12, 6), (4, 0), (44, -26, 30, -36), lean=84, nod=-25)),
                    (0.54, pose((12, 6), (4, 0), (44, -26, 30, -36), lean=84, nod=-25)),
                    (0.85, pose((16, 92), (10, 86), STRIDE, lean=6)),
                ),
                planted=True,
                before=props.picked_thing,
                touch=(props.GRASP, props.below_hands),
                tempers=(1.0, 1.0),
            ),
        ),
    ),
    Action(
        "pour",
        (
            Motion(
                keys=(
                    (0.0, pose(tool=178)),
                    (0.12, pose(tool=176)),
                    (0.36, pose(lean=5, nod=14, tool=74)),
                    (0.82, pose(lean=7, nod=16, tool=60)),
                    (1.0, pose(lean=4, nod=8, tool=110)),
                ),
                adjust=adjust.pour,
                behind=props.cup_below,
                held=props.bottle_in_hand,
                room=0.85,
                tempers=(1.0, 1.0),
            ),
        ),
    ),
    Action(
        "pullup",
        (
            Motion(
                keys=(
                    (0.0, pose(legs=(4, -4, -4, -10), lift=0.1)),
                    (0.45, pose(legs=(10, -12, 0, -22), lift=0.32)),
                    (0.6, pose(legs=(10, -12, 0, -22), lift=0.32)),
                ),
                cycle=(20, 30),
                adjust=adjust.hang,
                behind=props.pullup_bar,
                front=True,
                top=1.4,
                tempers=(1.0, 1.0),
            ),
        ),
    ),
    Action(
        "push",
        tuple(
            Motion(
                keys=PUSHING,
                cycle=(18, 28),
                stride=0.42,
                room=0.35,
                behind=prop,
                distance=near,
                apart=far,
                tempers=(0.95, 1.05),
            )
            for prop, near, far in (
                (props.pushed_box, (0.2, 0.3), None),
                (props.pushed_cart, (0.2, 0.3), (0.36, 0.5)),
            )
        ),
    ),
    Action(
        "run",
        (
            Motion(keys=RUN, cycle=(8, 11), stride=1.3),
            Motion(keys=JOG, cycle=(9, 12), stride=1.0),
        ),
    ),
    Action("sit", (Motion(keys=_SITTING_DOWN, planted=True, behind=props.seat),)),
    Action(
        "stand",
        (
            Motion(
                keys=tuple((1 - time, key) for time, key in reversed(_SITTING_DOWN)),
                planted=True,
                behind=props.seat,
            ),
        ),
    ),
    Action(
        "walk",
        (
            Motion(keys=WALK, cycle=(18, 26), stride=0.75),
            Motion(keys=BRISK, cycle=(16, 22), stride=0.85),
        ),
    ),
    Action(
        "wave",
        (
            Motion(keys=((0.0, pose((122, 142))), (0.5, pose((128, 206)))), cycle=(9, 14), top=1.1),
            Motion(
                keys=(
                    (0.0, pose((118, 136), (-8, -4), APART)),
                    (0.5, pose((126, 202), (-8, -4), APART)),
                ),
                cycle=(9, 14),
                front=True,
                top=1.1,
            ),
        ),
    ),
)
