"""Captions of drawn scenes."""

import random
import re

import pytest

from stclip.models.tokenizer import get_tokenizer
from stclip.puppet.draw.actions import ACTIONS, EXTRA_ACTIONS
from stclip.puppet.draw.captions import VERBS, Looks, all_words, write_caption

PEOPLE = [
    Looks("brush_hair", "red", "blue", "black"),
    Looks("run", "orange", "grey", "brown"),
    Looks("pullup", "teal", "white", "blond"),
]


def captions(people, count=400, seed=0):
    rng = random.Random(seed)
    return [write_caption(rng, people, "beach") for _ in range(count)]


def test_every_action_has_verbs():
    assert set(VERBS) == {*ACTIONS, *EXTRA_ACTIONS}


def test_verbs_are_told_apart():
    owners = {}
    for action, verbs in VERBS.items():
        assert len(set(verbs.doing)) >= 2
        assert len(set(verbs.does)) >= 2
        for words in (*verbs.doing, *verbs.does):
            assert owners.setdefault(words, action) == action, words


def test_equal_seeds_give_equal_captions():
    assert captions(PEOPLE, seed=3) == captions(PEOPLE, seed=3)
    assert captions(PEOPLE, seed=3) != captions(PEOPLE, seed=4)


def test_kinds_of_captions():
    texts = [caption.text for caption in captions(PEOPLE[:1])]
    assert 0.2 < texts.count("brush_hair") / len(texts) < 0.3
    assert 0.05 < texts.count("brush hair") / len(texts) < 0.15
    assert len(set(texts)) > 100
    for words in ("red", "red shirt", "blue trousers", "black hair", "on the beach", "on a beach"):
        assert any(words in text for text in texts), words


def test_the_actions_of_a_caption_are_what_it_says():
    for caption in captions(PEOPLE):
        assert 1 <= len(caption.actions) <= 2
        assert set(caption.actions) <= {looks.action for looks in PEOPLE}
        for looks in PEOPLE:
            verbs = [looks.action, looks.action.replace("_", " ")]
            for words in (*VERBS[looks.action].doing, *VERBS[looks.action].does):
                pattern = re.sub(r"\\{(their|themselves)\\}", r"\\w+", re.escape(words))
                verbs.append(pattern)
            said = any(re.search(rf"\b{words}\b", caption.text) for words in verbs)
            assert said == (looks.action in caption.actions), caption
        assert not re.search(r"[{}]", caption.text)


def test_the_first_person_is_told_of_most():
    first = [caption.actions[0] for caption in captions(PEOPLE)]
    assert 0.6 < first.count("brush_hair") / len(first) < 0.75  # 1/2 + 1/2 * 1/3
    assert {"run", "pullup"} < set(first)


@pytest.mark.parametrize("people", [PEOPLE, PEOPLE[1:], [Looks(a, *PEOPLE[0][1:]) for a in VERBS]])
def test_all_words_cover_all_captions(people):
    encode = get_tokenizer().encode
    known = {id for text in all_words(people, ["beach"]) for id in encode(text)}
    for caption in captions(people, 2000):
        assert known.issuperset(encode(caption.text)), caption
        assert len(encode(caption.text)) <= 75
