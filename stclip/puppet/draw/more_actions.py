"""Actions that J-HMDB does not have; only the pre-training sees them."""

from stclip.puppet.draw import adjust
from stclip.puppet.draw import more_props as props
from stclip.puppet.draw.figure import pose
from stclip.puppet.draw.gaits import APART, STRIDE, WALK
from stclip.puppet.draw.motion import Action, Motion

_GUARD = (20, 138)
_SQUAT = (100, -36, 94, -44)
_HELD_DOWN = tuple(
    (time, key._replace(near_upper=3.0, near_lower=1.0, lean=-2.0)) for time, key in WALK
)

MORE = (
    Action("carry_bag", (Motion(keys=_HELD_DOWN, cycle=(18, 28), stride=0.65, before=props.bag),)),
    Action(
        "crouch",
        (
            Motion(
                keys=(
                    (0.0, pose(legs=STRIDE)),
                    (0.15, pose(legs=STRIDE)),
                    (0.5, pose((50, 60), (40, 50), _SQUAT, lean=42, nod=-20)),
                    (1.0, pose((54, 70), (44, 60), _SQUAT, lean=38, nod=-15)),
                ),
                planted=True,
            ),
        ),
    ),
    Action(
        "dance",
        (
            Motion(
                keys=(
                    (0.0, pose((150, 200), (-60, -120), (24, 4, -6, -4), lean=8)),
                    (0.25, pose((100, 60), (-100, -60), (16, -6, -16, 6))),
                    (0.5, pose((60, 120), (-150, -200), (6, 4, -24, -4), lean=-8)),
                    (0.75, pose((100, 60), (-100, -60), (16, -6, -16, 6))),
                ),
                cycle=(14, 22),
                front=True,
                top=1.15,
            ),
        ),
    ),
    Action(
        "dig",
        (
            Motion(
                keys=(
                    (0.0, pose((40, 60), (24, 40), (26, -4, -14, -26), lean=32, tool=24)),
                    (0.35, pose((26, 40), (10, 20), (34, -14, -14, -32), lean=46, tool=32)),
                    (0.7, pose((60, 90), (40, 70), (22, -2, -14, -22), lean=14, tool=78)),
                ),
                cycle=(18, 28),
                planted=True,
                before=props.spade,
            ),
        ),
    ),
    Action(
        "juggle",
        (
            Motion(
                keys=((0.0, pose(legs=APART)),),
                cycle=(12, 18),
                front=True,
                adjust=adjust.juggle,
                before=props.juggled_balls,
                top=1.25,
            ),
        ),
    ),
    Action(
        "kneel",
        (
            Motion(
                keys=(
                    (0.0, pose(legs=STRIDE)),
                    (0.12, pose(legs=STRIDE)),
                    (0.45, pose((24, 40), (20, 36), (4, -86, 84, 2), lean=10)),
                    (1.0, pose((30, 60), (24, 56), (2, -88, 86, 2), lean=4, nod=14)),
                ),
            ),
        ),
    ),
    Action(
        "lie_down",
        (
            Motion(
                keys=(
                    (0.0, pose((10, 30), (-20, -10), (96, 20, 90, 10), lean=-6)),
                    (0.4, pose((-50, -20), (-56, -30), (92, 66, 88, 60), lean=-52)),
                    (0.7, pose((60, 84), (-80, -86), (90, 88, 92, 86), lean=-88, nod=-4)),
                    (1.0, pose((64, 86), (-82, -86), (90, 88, 92, 86), lean=-88, nod=-4)),
                ),
                tempers=(1.0, 1.0),
            ),
        ),
    ),
    Action(
        "lift_weights",
        (
            Motion(
                keys=((0.0, pose(legs=APART)), (0.5, pose(legs=(13, 13, -13, -13)))),
                cycle=(18, 28),
                front=True,
                adjust=adjust.lift_barbell,
                before=props.barbell,
                top=1.25,
            ),
        ),
    ),
    Action(
        "phone_call",
        (
            Motion(
                keys=(
                    (0.0, pose(far=(-4, 20))),
                    (0.5, pose(far=(20, 70), lean=-3, nod=6)),
                ),
                cycle=(22, 40),
                adjust=adjust.telephone,
                before=props.phone,
            ),
        ),
    ),
    Action(
        "play_guitar",
        (
            Motion(
                keys=((0.0, pose(legs=APART)), (0.5, pose(legs=APART, lean=4))),
                cycle=(12, 20),
                front=True,
                adjust=adjust.strum,
                held=props.guitar,
            ),
        ),
    ),
    Action(
        "point",
        (
            Motion(
                keys=(
                    (0.0, pose((60, 66), legs=STRIDE)),
                    (0.3, pose((92, 94), legs=STRIDE, lean=4)),
                    (0.6, pose((100, 102), legs=STRIDE, lean=4)),
                    (1.0, pose((88, 90), legs=STRIDE, lean=3)),
                ),
            ),
        ),
    ),
    Action(
        "punch",
        (
            Motion(
                keys=(
                    (0.0, pose((88, 92), _GUARD, (26, 4, -20, -26), lean=12)),
                    (0.25, pose(_GUARD, _GUARD, (20, -4, -16, -26), lean=4)),
                    (0.5, pose(_GUARD, (88, 92), (22, 0, -18, -28), lean=12)),
                    (0.75, pose(_GUARD, _GUARD, (20, -4, -16, -26), lean=4)),
                ),
                cycle=(10, 16),
                planted=True,
            ),
        ),
    ),
    Action(
        "read_book",
        (
            Motion(
                keys=((0.0, pose(nod=24)), (0.5, pose(nod=30, lean=3))),
                cycle=(24, 40),
                adjust=adjust.read,
                before=props.book,
            ),
        ),
    ),
    Action(
        "salute",
        (
            Motion(
                keys=((0.0, pose(legs=(2, 0, -2, -2))), (1.0, pose(legs=(2, 0, -2, -2), lean=-2))),
                adjust=adjust.salute,
            ),
        ),
    ),
    Action(
        "skip_rope",
        (
            Motion(
                keys=(
                    (0.0, pose((30, 70), (-30, -70), (5, -4, -5, 4), lift=0.12)),
                    (0.5, pose((34, 76), (-34, -76), (8, -8, -8, 8))),
                ),
                cycle=(10, 15),
                front=True,
                before=props.rope,
                top=1.4,
            ),
        ),
    ),
    Action(
        "sweep_floor",
        (
            Motion(
                keys=(
                    (0.0, pose((36, 70), (10, 40), STRIDE, lean=14, tool=10, nod=12)),
                    (0.5, pose((60, 84), (40, 70), STRIDE, lean=20, tool=38, nod=12)),
                ),
                cycle=(14, 22),
                planted=True,
                adjust=adjust.hands_together,
                before=props.broom,
            ),
        ),
    ),
)
