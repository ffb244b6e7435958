"""Hands and feet that reach for something: what changes the joints after the pose is placed."""

import math

from stclip.puppet.draw import props
from stclip.puppet.draw.figure import SOLE, Build, Joints, bend, far_arm, near_arm
from stclip.puppet.draw.motion import Now
from stclip.puppet.draw.pen import between, plus, step


def hands_together(now: Now, build: Build) -> Joints:
    """The far hand at the near one."""
    return far_arm(now.joints, build, plus(now.joints.near_hand, (-0.02, -0.02)))


def brush(now: Now, build: Build) -> Joints:
    """The near hand with a brush, over the hair."""
    joints = now.joints
    angle = 170 - 5 + 105 * props.swings(now.time)  # from the forehead to the neck, over the top
    hand = step(joints.head, angle, 1.25 * build.head)
    return near_arm(joints, build, hand)._replace(tool=angle + 100)


def clap_ahead(now: Now, build: Build) -> Joints:
    """Both hands ahead, apart and together."""
    gap, (x, y) = 0.15 * props.swings(now.time), now.joints.neck
    joints = near_arm(now.joints, build, (x + 0.24 - 0.3 * gap, y - 0.08 + gap))
    return far_arm(joints, build, (x + 0.25 - 0.3 * gap, y - 0.08 - gap))


def climb(now: Now, build: Build) -> Joints:
    """Both feet on steps, one of them on its way to the step after next."""
    width, rise = props.STEP
    done = 0.4 + 3.9 * now.time
    feet = []
    for first in (0.0, 1.0):
        half = (done - first) / 2
        swing = max(0.0, 2 * (half - math.floor(half)) - 1)
        stair = first + 2 * math.floor(half) + 2 * swing
        high = math.sin(math.pi * swing) * 0.13
        # A stair's height is reached before its width, so that no foot goes through the stairs.
        up = first + 2 * math.floor(half) + 2 * min(1.0, 1.4 * swing)
        feet.append(((stair - 0.5) * width, max(0.0, up * rise) + high + SOLE))
    joints = now.joints
    hip = ((done - 0.05) * width - 0.06, (done - 0.35) * rise + 1.86 * build.leg + SOLE)
    joints = joints.moved(hip[0] - joints.hip[0], hip[1] - joints.hip[1])
    near_knee, near_foot = bend(joints.near_hip, feet[0], build.leg, 1)
    far_knee, far_foot = bend(joints.far_hip, feet[1], build.leg, 1)
    return joints._replace(
        near_knee=near_knee, near_foot=near_foot, far_knee=far_knee, far_foot=far_foot
    )


def hang(now: Now, build: Build) -> Joints:
    """Both hands on the bar."""
    joints = near_arm(now.joints, build, (0.17, props.BAR))
    return far_arm(joints, build, (-0.17, props.BAR), side=1)


def pour(now: Now, build: Build) -> Joints:
    """The bottle above the cup."""
    joints, tilt = now.joints, (180 - now.joints.tool) / 110
    joints = near_arm(joints, build, (0.27 + 0.04 * tilt, 0.64 + 0.1 * tilt))
    if now.use.style >= 0.6:
        joints = far_arm(joints, build, (0.44, 0.53))
    return joints


def draw_bow(now: Now, build: Build) -> Joints:
    """One hand at the bow, the other one at its string."""
    joints = now.joints
    grip = plus(joints.neck, (1.9 * build.arm, -0.01))
    joints = far_arm(joints, build, grip)
    drawn = props.dealt(now.time, 0.08, 0.5)
    start, chin = plus(grip, (-0.1, 0.0)), plus(joints.neck, (0.07, -0.01))
    if now.time > 0.68:
        return near_arm(joints, build, plus(chin, (-0.06, 0.02)), side=1)
    return near_arm(joints, build, between(start, chin, drawn), side=1)


def aim_rifle(now: Now, build: Build) -> Joints:
    """Both hands at a rifle."""
    neck = now.joints.neck
    kick = -0.03 if now.time % 1.0 < 0.3 else 0.0
    joints = near_arm(now.joints, build, plus(neck, (0.12 + kick, -0.01)))
    return far_arm(joints, build, plus(neck, (0.29 + kick, -0.005)))


def salute(now: Now, build: Build) -> Joints:
    """The near hand at the forehead."""
    return near_arm(now.joints, build, plus(now.joints.head, (0.07, 0.05)))


def read(now: Now, build: Build) -> Joints:
    """Both hands at a book."""
    x, y = now.joints.neck
    joints = near_arm(now.joints, build, (x + 0.2, y - 0.1))
    return far_arm(joints, build, (x + 0.24, y - 0.08))


def telephone(now: Now, build: Build) -> Joints:
    """The near hand at the ear."""
    return near_arm(now.joints, build, plus(now.joints.head, (-0.01, -0.03)))


def lift_barbell(now: Now, build: Build) -> Joints:
    """Both hands on a bar that goes from the chest to above the head."""
    y = now.joints.neck[1] - 0.02 + 0.3 * props.swings(now.time)
    joints = near_arm(now.joints, build, (0.2, y))
    return far_arm(joints, build, (-0.2, y), side=1)


def juggle(now: Now, build: Build) -> Joints:
    """Hands that go up in turn."""
    y = now.joints.neck[1] - 0.2
    up = props.swings(2 * now.time)
    joints = near_arm(now.joints, build, (0.2, y + 0.07 * up), side=1)
    return far_arm(joints, build, (-0.2, y + 0.07 * (1 - up)))


def strum(now: Now, build: Build) -> Joints:
    """One hand at a guitar's neck, the other one at its strings."""
    hip = now.joints.hip
    joints = near_arm(now.joints, build, plus(hip, (0.3, 0.23)))
    along = 0.09 * props.swings(2 * now.time)
    return far_arm(joints, build, plus(hip, (-0.05, 0.1 - along)))
