"""The tokenizer against the published ones."""

import gzip
import hashlib
from importlib.resources import files

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.errors import UserError
from stclip.models.tokenizer import PAIRS, VOCABULARY, get_tokenizer, tokenize

START, END = 49406, 49407
# Computed with the tokenizers of open_clip and transformers, which agree.
GOLDEN = {
    "": [],
    "brush_hair": [8594, 318, 2225],
    "a photo of a cat!": [320, 1125, 539, 320, 2368, 256],
    "It's 12 o'clock & we'LL run": [585, 568, 272, 273, 334, 262, 6716, 261, 649, 1342, 1934],
    "swing baseball": [7429, 3470],
    "日本 É ½": [39121, 19277, 361, 4166, 33613],
}
# Awkward on purpose: contractions, entities, marks, other scripts, symbols of several code points.
PIECES = ["'s", "'LL", "it's", "&amp;", "&amp;lt;", "_", "12", "½", "É", "é", "ſ", "İ", "ß", "日本"]
PIECES += ["👩‍👩‍👧", "\u200b", "\xa0", "\t", "\n", "...", "â€™", "<", ">", "/", "w", "</w>", " "]

texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


def has_special_token(text: str) -> bool:
    """open_clip writes the special tokens otherwise."""
    return any(part in text.lower() for part in ("<|", "_of_text"))


def test_the_vocabulary_is_openais():
    packed = (files("stclip") / "assets" / VOCABULARY).read_bytes()
    expected = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    assert hashlib.sha256(packed).hexdigest() == expected


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_ids(text):
    assert get_tokenizer().encode(text) == GOLDEN[text]


@settings(max_examples=300)
@given(text=texts.filter(lambda text: not has_special_token(text)))
@pytest.mark.slow
def test_equals_open_clip(text):
    module = pytest.importorskip("open_clip.tokenizer")
    assert get_tokenizer().encode(text) == module._tokenizer.encode(text)


@pytest.fixture(scope="module")
def transformers_tokenizer():
    """Theirs, made of the same vocabulary; it cleans only what is not plain ASCII otherwise."""
    transformers = pytest.importorskip("transformers")
    lines = gzip.decompress((files("stclip") / "assets" / VOCABULARY).read_bytes()).decode()
    merges = [tuple(line.split()) for line in lines.split("\n")[1 : 1 + PAIRS]]
    return transformers.CLIPTokenizer(vocab=dict(get_tokenizer()._id), merges=merges)


plain_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="&|"))


@settings(max_examples=300)
@given(text=plain_texts)
def test_equals_transformers_on_plain_text(transformers_tokenizer, text):
    theirs = transformers_tokenizer(text)["input_ids"]
    assert [START, *get_tokenizer().encode(text), END] == theirs


def test_special_tokens_in_a_text_are_themselves():
    assert get_tokenizer().encode("a<|startoftext|>b <|ENDOFTEXT|>") == [320, START, 321, END]


@settings(max_examples=200)
@given(text=texts)
def test_any_text_gets_ids_that_exist(text):
    ids = get_tokenizer().encode(text)
    assert all(0 <= id <= END for id in ids)
    assert tokenize(text, 16, truncate=True).shape == (1, 16)


@pytest.mark.parametrize("text", ["brush hair", "climb 2 stairs", "日本 é ½", "wow ! ! !"])
def test_decode_gives_the_text_back(text):
    tokenizer = get_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenize(text)[0].tolist()) == text


def test_tokenize():
    tokens = tokenize(["brush_hair", ""])
    assert tokens.dtype == torch.long
    assert tokens.shape == (2, 77)
    assert tokens[0, :6].tolist() == [START, 8594, 318, 2225, END, 0]
    assert tokens[1, :3].tolist() == [START, END, 0]
    assert tokens.argmax(dim=-1).tolist() == [4, 1]
    assert torch.equal(tokenize("brush_hair"), tokens[:1])
    assert torch.equal(tokenize("brush_hair", 8), tokens[:1, :8])
    assert tokenize([]).shape == (0, 77)


def test_an_overlong_text_is_an_error_or_is_cut():
    assert tokenize("cat " * 75)[0, 76] == END  # just fits
    with pytest.raises(UserError, match=r"found 78 tokens, expected at most 77.*truncate=True"):
        tokenize("cat " * 76)
    cut = tokenize("cat " * 76, truncate=True)[0]
    assert cut[76] == END
    assert cut[75] == 2368
    assert get_tokenizer().decode(cut.tolist()) == " ".join(["cat"] * 75)


def test_what_is_no_text_is_told():
    with pytest.raises(UserError, match=r"texts\[1\]: found int, expected str"):
        tokenize(["a", 3])


def test_lone_surrogates_do_not_crash():
    assert get_tokenizer().encode("\ud800") == get_tokenizer().encode("\ufffd")
