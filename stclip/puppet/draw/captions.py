"""Captions of drawn scenes: what people might have written under such a picture.

The small CLIP reads these instead of the captions of the web. An action is named by its bare label
(``brush_hair``), in a few words or in a whole sentence, in several words of the same meaning.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stclip.puppet.draw.chance import Chance


class Verbs(NamedTuple):
    """What somebody does; {their} stands for a pronoun."""

    doing: tuple[str, ...]  # after "a person", "is" or nothing
    does: tuple[str, ...]  # after "a person"


class Looks(NamedTuple):
    """What a caption may say about a person. A plain tuple, so that JSON can hold it."""

    action: str  # one of VERBS
    shirt: str  # the name of its colour
    trousers: str  # likewise
    hair: str  # likewise, or "no"


@dataclass(frozen=True)
class Caption:
    """A text and what it says.

    Attributes:
        text: the caption.
        actions: the actions that it names.
    """

    text: str
    actions: tuple[str, ...]


def _verbs(doing: str, does: str) -> Verbs:
    return Verbs(tuple(doing.split(", ")), tuple(does.split(", ")))


VERBS: Mapping[str, Verbs] = {
    # The actions of J-HMDB.
    "brush_hair": _verbs(
        "brushing hair, brushing {their} hair, combing {their} hair, using a hairbrush",
        "brushes {their} hair, combs {their} hair with a brush, brushes hair",
    ),
    "catch": _verbs(
        "catching, catching a ball, about to catch a ball, reaching to catch a flying ball",
        "catches, catches a ball, receives a ball with both hands",
    ),
    "clap": _verbs(
        "clapping, clapping {their} hands, applauding, clapping hands",
        "claps, claps {their} hands, applauds",
    ),
    "climb_stairs": _verbs(
        "climbing stairs, climbing the stairs, walking up the stairs, going up steps",
        "climbs stairs, climbs the stairs, goes up a staircase, walks up the steps",
    ),
    "golf": _verbs(
        "golfing, playing golf, swinging a golf club, hitting a golf ball",
        "plays golf, golfs, swings a golf club",
    ),
    "jump": _verbs(
        "jumping, jumping up, leaping into the air, hopping high",
        "jumps, jumps up, leaps, jumps into the air",
    ),
    "kick_ball": _verbs(
        "kicking a ball, kicking the ball, kicking a football, shooting a ball with the foot",
        "kicks a ball, kicks the ball, kicks a football away",
    ),
    "pick": _verbs(
        "picking, picking something up, picking up a box, bending to pick up a thing",
        "picks something up, picks, lifts a box off the ground, bends to pick up a box",
    ),
    "pour": _verbs(
        "pouring, pouring a drink, pouring from a bottle into a cup, filling a cup",
        "pours, pours a drink, pours water into a glass, fills a cup from a bottle",
    ),
    "pullup": _verbs(
        "doing a pullup, doing pullups, pulling {themselves} up on a bar, hanging from a bar",
        "does a pullup, does pullups, pulls {themselves} up on a bar",
    ),
    "push": _verbs(
        "pushing, pushing a box, pushing something heavy, shoving a large box",
        "pushes, pushes a box, pushes something heavy along the ground",
    ),
    "run": _verbs(
        "running, running fast, sprinting, jogging",
        "runs, runs fast, sprints, jogs",
    ),
    "shoot_ball": _verbs(
        "shooting a ball, shooting a basketball, throwing a ball at a hoop, shooting at the basket",
        "shoots a ball, shoots a basketball at the hoop, throws a ball into the basket",
    ),
    "shoot_bow": _verbs(
        "shooting a bow, shooting an arrow, drawing a bow, doing archery",
        "shoots a bow, shoots an arrow with a bow, draws a bow",
    ),
    "shoot_gun": _verbs(
        "shooting a gun, firing a gun, aiming a pistol, shooting with a gun",
        "shoots a gun, fires a gun, aims a pistol",
    ),
    "sit": _verbs(
        "sitting, sitting down, sitting down on a chair, taking a seat",
        "sits, sits down, sits down on a chair, takes a seat",
    ),
    "stand": _verbs(
        "standing up, standing up from a chair, getting up, rising from a seat",
        "stands up, stands up from a chair, gets up from a seat, stands",
    ),
    "swing_baseball": _verbs(
        "swinging a baseball bat, swinging at a baseball, batting, playing baseball",
        "swings a baseball bat, swings a bat, hits a baseball",
    ),
    "throw": _verbs(
        "throwing, throwing a ball, hurling a ball, tossing a ball away",
        "throws, throws a ball, hurls a ball away",
    ),
    "walk": _verbs(
        "walking, walking along, strolling, going for a walk",
        "walks, walks along, strolls",
    ),
    "wave": _verbs(
        "waving, waving a hand, waving {their} hand, waving goodbye",
        "waves, waves {their} hand, waves goodbye",
    ),
    # Actions that the benchmark does not have.
    "carry_bag": _verbs(
        "carrying a bag, carrying bags, holding a bag", "carries a bag, carries a heavy bag"
    ),
    "crouch": _verbs(
        "crouching, crouching down, squatting, ducking", "crouches, squats, crouches down"
    ),
    "dance": _verbs("dancing, dancing around, doing a dance", "dances, dances around"),
    "dig": _verbs(
        "digging, digging a hole, digging with a spade", "digs, digs a hole, digs with a shovel"
    ),
    "juggle": _verbs(
        "juggling, juggling balls, juggling three balls", "juggles, juggles three balls"
    ),
    "kneel": _verbs(
        "kneeling, kneeling down, resting on {their} knees", "kneels, kneels down on the ground"
    ),
    "lie_down": _verbs(
        "lying down, lying on the ground, lying flat", "lies down, lies on the ground"
    ),
    "lift_weights": _verbs(
        "lifting weights, lifting a barbell, weightlifting", "lifts weights, lifts a barbell"
    ),
    "phone_call": _verbs(
        "making a phone call, talking on the phone, holding a phone to {their} ear",
        "makes a phone call, talks on the phone, phones somebody",
    ),
    "play_guitar": _verbs(
        "playing guitar, playing the guitar, strumming a guitar", "plays guitar, plays the guitar"
    ),
    "point": _verbs(
        "pointing, pointing at something, pointing ahead", "points, points at something"
    ),
    "punch": _verbs("punching, throwing a punch, boxing", "punches, throws a punch, boxes"),
    "read_book": _verbs(
        "reading a book, reading, holding an open book", "reads a book, reads, reads in a book"
    ),
    "salute": _verbs("saluting, giving a salute", "salutes, gives a salute"),
    "skip_rope": _verbs(
        "skipping rope, jumping rope, skipping with a rope", "skips rope, jumps rope"
    ),
    "sweep_floor": _verbs(
        "sweeping the floor, sweeping with a broom, sweeping",
        "sweeps the floor, sweeps with a broom",
    ),
}

# Who, and the pronouns that go with it.
_WHO = (
    ("a person", "their", "themselves"),
    ("someone", "their", "themselves"),
    ("somebody", "their", "themselves"),
    ("a man", "his", "himself"),
    ("a woman", "her", "herself"),
)
_PREFIXES = ("", "", "", "", "a photo of ", "a picture of ", "a drawing of ", "here is ")
_JOINS = (", and ", " and ", " with ", " beside ", " next to ")
# The places that one is on, not in.
_ON = {"beach", "field", "lawn", "road", "street"}
# How often a caption is of each kind; the rest are whole sentences.
_LABEL, _SPACED_LABEL, _SHORT = 0.25, 0.10, 0.35


def write_caption(rng: random.Random, people: Sequence[Looks], place: str) -> Caption:
    """Describe one person of a picture, or two.

    Args:
        rng: chooses the words.
        people: who can be seen, at least one; the first is described most often.
        place: where, such as "park".
    """
    chance = Chance(rng)
    kind = chance.uniform(0, 1)
    first = 0 if chance.happens(0.5) else chance.below(len(people))
    person = people[first]
    if kind < _LABEL:
        return Caption(person.action, (person.action,))
    if kind < _LABEL + _SPACED_LABEL:
        return Caption(person.action.replace("_", " "), (person.action,))
    if kind < _LABEL + _SPACED_LABEL + _SHORT:
        return Caption(_short(chance, person), (person.action,))
    text, actions = _sentence(chance, person, place), [person.action]
    others = [*people[:first], *people[first + 1 :]]
    if others and chance.happens(0.7):
        other = chance.choice(others)
        text += chance.choice(_JOINS) + _person(chance, other)
        actions.append(other.action)
    return Caption(chance.choice(_PREFIXES) + text, tuple(actions))


def all_words(people: Sequence[Looks], places: Sequence[str]) -> list[str]:
    """Texts that hold every word that captions of these people and places can hold."""
    texts = [*_PREFIXES, *_JOINS, "in on is the a an shirt trousers with hair", *places]
    texts += [" ".join(who) for who in _WHO]
    texts += [" ".join(looks[1:]) for looks in people]
    for action, verbs in VERBS.items():
        texts += [action, action.replace("_", " ")]
        texts += [_put(words, _WHO[0]) for words in (*verbs.doing, *verbs.does)]
    return list(dict.fromkeys(texts))


def _short(chance: Chance, person: Looks) -> str:
    who, verbs = chance.choice(_WHO), VERBS[person.action]
    doing = _put(chance.choice(verbs.doing), who)
    form = chance.below(4)
    if form == 0:
        return doing
    if form == 1:
        return f"{who[0]} {_put(chance.choice(verbs.does), who)}"
    return f"{chance.choice(_PREFIXES)}{who[0]} {doing}"


def _sentence(chance: Chance, person: Looks, place: str) -> str:
    text = _person(chance, person, sentence=chance.happens(0.6))
    if chance.happens(0.6):
        article = "the" if chance.happens(0.5) else _article(place)
        text += f" {'on' if place in _ON else 'in'} {article} {place}"
    return text


def _person(chance: Chance, person: Looks, sentence: bool = False) -> str:
    who, verbs = chance.choice(_WHO), VERBS[person.action]
    dress = (
        "",
        f" in {person.shirt}",
        f" in {_article(person.shirt)} {person.shirt} shirt",
        f" in {person.trousers} trousers",
        f" with {person.hair} hair",
    )
    if not sentence:
        doing = chance.choice(verbs.doing)
    elif chance.happens(0.5):
        doing = chance.choice(verbs.does)
    else:
        doing = "is " + chance.choice(verbs.doing)
    return f"{who[0]}{chance.choice(dress)} {_put(doing, who)}"


def _put(words: str, who: tuple[str, str, str]) -> str:
    return words.replace("{their}", who[1]).replace("{themselves}", who[2])


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
