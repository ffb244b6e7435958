"""Ways to stand and to walk that several actions share."""

from stclip.puppet.draw.figure import pose
from stclip.puppet.draw.motion import Key

# Legs of somebody who stands firmly, seen from the side and from the front.
STRIDE = (16, 6, -16, -10)
APART = (12, 9, -12, -9)


def mirrored(key: Key, time: float) -> Key:
    """The same pose with near and far side exchanged, for the other half of a step."""
    p = key[1]
    return time, p._replace(
        near_upper=p.far_upper,
        near_lower=p.far_lower,
        far_upper=p.near_upper,
        far_lower=p.near_lower,
        near_thigh=p.far_thigh,
        near_shin=p.far_shin,
        far_thigh=p.near_thigh,
        far_shin=p.near_shin,
    )


def steps(contact: Key, passing: Key) -> tuple[Key, ...]:
    """Two steps, one with each leg."""
    return contact, passing, mirrored(contact, 0.5), mirrored(passing, 0.75)


WALK = steps(
    (0.0, pose((-26, -12), (24, 38), (26, 14, -20, -36), lean=3)),
    (0.25, pose((0, 8), (2, 12), (3, -3, 14, -46), lean=3)),
)
BRISK = steps(
    (0.0, pose((-40, 20), (36, 100), (30, 14, -24, -42), lean=7)),
    (0.25, pose((-6, 50), (4, 70), (4, -6, 20, -58), lean=7)),
)
JOG = steps(
    (0.0, pose((-44, 30), (40, 112), (38, 2, -26, -66), lean=9, lift=0.03)),
    (0.25, pose((-6, 60), (4, 76), (8, -16, 28, -68), lean=9)),
)
RUN = steps(
    (0.0, pose((-58, 25), (52, 128), (56, 6, -34, -88), lean=15, lift=0.06)),
    (0.25, pose((-6, 70), (4, 86), (10, -22, 40, -78), lean=15)),
)
PUSHING = steps(
    (0.0, pose((72, 88), (68, 86), (24, 2, -30, -48), lean=26)),
    (0.25, pose((76, 90), (72, 88), (2, -18, 18, -50), lean=28)),
)
