"""Those of the 21 actions that are done with balls or weapons."""

from stclip.puppet.draw import adjust, props
from stclip.puppet.draw.figure import pose
from stclip.puppet.draw.gaits import APART, STRIDE
from stclip.puppet.draw.motion import Action, Motion

SPORTS = (
    Action(
        "catch",
        tuple(
            Motion(
                keys=(
                    (0.0, pose(*ready, (18, -10, 4, -20), lean=8)),
                    (0.4, pose(*out, (20, -10, 2, -20), lean=10)),
                    (props.ARRIVAL, pose(*out, (22, -12, 0, -22), lean=8)),
                    (0.85, pose((10, 112), (4, 108), (16, -12, 2, -22), lean=2)),
                ),
                planted=True,
                before=props.caught_ball,
                room=0.1,
                distance=(1.0, 1.4),
                apart=(1.3, 1.7),
                touch=(props.ARRIVAL, props.in_hands),
                span=(0.0, 0.95),
                apart_span=(0.0, 0.66),
            )
            for ready, out in (
                (((30, 85), (22, 80)), ((78, 98), (68, 102))),
                (((50, 100), (40, 95)), ((125, 145), (115, 148))),
            )
        ),
    ),
    Action(
        "golf",
        (
            Motion(
                keys=(
                    (0.0, pose((0, 0), legs=APART, tool=2)),
                    (0.08, pose((0, 0), legs=APART, tool=2)),
                    (0.34, pose((-118, -128), legs=APART, lean=-4, tool=-205)),
                    (0.42, pose((-112, -120), legs=APART, lean=-3, tool=-195)),
                    (props.RELEASE, pose((8, 8), legs=(9, 6, -15, -12), tool=8)),
                    (0.64, pose((118, 128), legs=(6, 3, -20, -20), lean=4, tool=190)),
                    (0.78, pose((140, 150), legs=(5, 3, -22, -26), lean=6, tool=240)),
                ),
                adjust=adjust.hands_together,
                before=props.golf_club,
                behind=props.golf_ball,
                room=0.2,
                front=True,
                distance=(0.75, 1.0),
                apart=(1.0, 1.3),
            ),
        ),
    ),
    Action(
        "kick_ball",
        (
            Motion(
                keys=(
                    (0.0, pose((24, 40), (-22, -8), (20, 8, -22, -40), lean=6, x=-0.42)),
                    (0.22, pose((-20, -6), (24, 42), (-10, -40, 26, 10), lean=6, x=-0.2)),
                    (0.38, pose((50, 70), (-46, -30), (-42, -100, 14, -6), lean=6, x=-0.04)),
                    (props.RELEASE, pose((-10, 0), (10, 20), (34, 20, 0, -10), lean=-4, x=0.0)),
                    (0.62, pose((-44, -30), (46, 60), (82, 74, -6, -12), lean=-14, x=0.03)),
                    (0.85, pose((-10, 0), (20, 30), (30, 0, -4, -8), x=0.06)),
                ),
                before=props.kicked_ball,
                room=0.2,
                distance=(0.8, 1.1),
                apart=(1.2, 1.6),
                apart_span=(0.4, 1.0),
                tempers=(0.95, 1.08),
            ),
        ),
    ),
    Action(
        "shoot_ball",
        (
            Motion(
                keys=(
                    (0.0, pose((22, 98), (14, 92), (20, -10, 14, -16), lean=8)),
                    (0.26, pose((34, 128), (26, 124), (44, -32, 38, -38), lean=14)),
                    (props.RELEASE, pose((142, 156), (136, 150), (8, -6, 2, -12), lift=0.09)),
                    (0.62, pose((138, 138), (128, 134), (6, -8, 2, -12), lift=0.02)),
                    (0.85, pose((110, 120), (60, 80), (8, -6, 0, -8))),
                ),
                planted=True,
                before=props.hoop_and_ball,
                room=0.28,
                distance=(0.75, 0.95),
                apart=(1.15, 1.5),
                touch=(props.RELEASE, props.in_hands),
                apart_span=(0.35, 1.0),
                top=1.56,
                tempers=(0.96, 1.03),
            ),
        ),
    ),
    Action(
        "shoot_bow",
        (
            Motion(
                keys=((0.0, pose(legs=STRIDE)), (1.0, pose(legs=STRIDE, lean=-3))),
                adjust=adjust.draw_bow,
                behind=props.archery_target,
                room=0.15,
                held=props.bow,
                distance=(0.9, 1.2),
                apart=(1.2, 1.6),
            ),
        ),
    ),
    Action(
        "shoot_gun",
        (
            Motion(
                keys=(
                    (0.0, pose((90, 96), (84, 92), STRIDE, lean=-3, tool=92)),
                    (0.14, pose((100, 118), (94, 112), STRIDE, lean=-6, tool=112)),
                    (0.45, pose((86, 90), (80, 90), STRIDE, lean=3, tool=90)),
                ),
                cycle=(10, 15),
                adjust=adjust.hands_together,
                before=props.pistol,
                room=0.6,
            ),
            Motion(
                keys=(
                    (0.0, pose(legs=STRIDE, lean=0, tool=90)),
                    (0.14, pose(legs=STRIDE, lean=-4, tool=94)),
                    (0.45, pose(legs=STRIDE, lean=5, tool=90)),
                ),
                cycle=(10, 15),
                adjust=adjust.aim_rifle,
                before=props.rifle,
                room=0.75,
            ),
        ),
    ),
    Action(
        "swing_baseball",
        (
            Motion(
                keys=(
                    (0.0, pose((-38, 122), legs=(20, 2, -20, -12), lean=4, tool=-160)),
                    (0.3, pose((-60, 118), legs=(16, -2, -22, -18), lean=-4, tool=-150)),
                    (0.42, pose((-10, 60), legs=(24, 6, -20, -18), lean=2, tool=-70)),
                    (props.RELEASE, pose((70, 86), legs=(28, 12, -24, -30), lean=8, tool=84)),
                    (0.6, pose((100, 128), legs=(28, 12, -26, -36), lean=4, tool=150)),
                    (0.75, pose((96, 168), legs=(26, 10, -26, -38), lean=0, tool=216)),
                ),
                planted=True,
                adjust=adjust.hands_together,
                before=props.bat,
                behind=props.pitched_ball,
                top=1.2,
                distance=(0.9, 1.2),
                tempers=(0.96, 1.04),
            ),
        ),
    ),
    Action(
        "throw",
        (
            Motion(
                keys=(
                    (0.0, pose((120, 160), (40, 80), (14, 0, -14, -10))),
                    (0.3, pose((250, 190), (80, 72), (26, 4, -22, -16), lean=-14)),
                    (0.42, pose((190, 190), (50, 60), (26, 8, -22, -18), lean=0)),
                    (props.RELEASE, pose((120, 104), (0, 30), (30, 6, -24, -34), lean=12)),
                    (0.64, pose((60, 46), (-30, 10), (32, 4, -26, -44), lean=24)),
                    (0.9, pose((40, 50), (10, 20), (24, 2, -18, -30), lean=10)),
                ),
                planted=True,
                held=props.thrown_ball,
                room=0.1,
                distance=(1.0, 1.4),
                apart=(1.3, 1.7),
                touch=(props.RELEASE, props.in_hand),
                apart_span=(0.42, 1.0),
                tempers=(0.96, 1.04),
            ),
            Motion(
                keys=(
                    (0.0, pose((14, 112), (8, 108), (16, -10, 2, -20), lean=2)),
                    (0.3, pose((-4, 118), (-10, 114), (16, -12, 2, -24), lean=-4)),
                    (props.RELEASE, pose((82, 96), (74, 98), (26, 0, -10, -26), lean=12)),
                    (0.68, pose((76, 88), (68, 88), (26, 0, -12, -28), lean=12)),
                    (0.95, pose((30, 60), (22, 54), (18, -6, 0, -16), lean=6)),
                ),
                planted=True,
                before=props.passed_ball,
                room=0.1,
                distance=(1.0, 1.4),
                apart=(1.3, 1.7),
                touch=(props.RELEASE, props.in_hands),
                apart_span=(0.42, 1.0),
            ),
        ),
    ),
)
