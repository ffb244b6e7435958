"""CLIP's byte-pair tokenizer.

A text is cleaned (ftfy, HTML entities, white space, lower case) and split into words, digits and
runs of punctuation. The bytes of each piece, the last one marked as the end of a word, are joined
pair by pair in the order in which the pairs were learned. Ids: 256 bytes, the same 256 at the end
of a word, one for every learned pair, start-of-text, end-of-text.

Source: Sennrich et al. 2016 (byte-pair encoding); the vocabulary is OpenAI's (assets/README.md).
"""

import functools
import gzip
import html
from collections.abc import Iterable
from importlib.resources import files
from itertools import pairwise

import ftfy
import regex
import torch
from torch import Tensor

from stclip.errors import UserError

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
# The file has more pairs than these; CLIP was trained with 49,408 ids: 2 * 256 + pairs + 2.
PAIRS = 49408 - 2 * 256 - 2
START_OF_TEXT = "<|startoftext|>"
END_OF_TEXT = "<|endoftext|>"
END_OF_WORD = "</w>"

# What is not split further before the pairs are joined.
_PIECES = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>"
    r"|'s|'t|'re|'ve|'m|'ll|'d"  # English contractions
    r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",  # letters, one digit, anything else but space
    regex.IGNORECASE,
)
_SPACES = regex.compile(r"\s+")


class Tokenizer:
    """Turns text into token ids and back.

    Attributes:
        start: the id of start-of-text.
        end: the id of end-of-text, the largest of all.
    """

    def __init__(self) -> None:
        packed = (files("stclip") / "assets" / VOCABULARY).read_bytes()
        lines = gzip.decompress(packed).decode("utf-8").split("\n")
        pairs = [tuple(line.split()) for line in lines[1 : 1 + PAIRS]]  # the first is a version
        self._letters = _letters_of_bytes()
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}
        letters = list(self._letters.values())
        symbols = letters + [letter + END_OF_WORD for letter in letters]
        symbols += ["".join(pair) for pair in pairs] + [START_OF_TEXT, END_OF_TEXT]
        self._symbols = symbols
        self._id = {symbol: id for id, symbol in enumerate(symbols)}
        self.start, self.end = self._id[START_OF_TEXT], self._id[END_OF_TEXT]
        # Class names and prompts repeat their words.
        self._encode_piece = functools.lru_cache(maxsize=65536)(self._join_pairs)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start and end of text."""
        text = html.unescape(html.unescape(ftfy.fix_text(text)))  # some pages escape twice
        text = _SPACES.sub(" ", text.strip()).strip().lower()
        return [id for piece in _PIECES.findall(text) for id in self._encode_piece(piece)]

    def decode(self, ids: Iterable[int]) -> str:
        """The cleaned text of some ids, words separated by spaces; stops at end-of-text."""
        byte_of_letter = {letter: byte for byte, letter in self._letters.items()}
        text = bytearray()
        for id in ids:
            if id == self.end:
                break
            if id == self.start:
                continue
            symbol = self._symbols[id]
            text += bytes(byte_of_letter[letter] for letter in symbol.removesuffix(END_OF_WORD))
            if symbol.endswith(END_OF_WORD):
                text += b" "
        return text.decode("utf-8", errors="replace").strip()

    def _join_pairs(self, piece: str) -> tuple[int, ...]:
        if piece in (START_OF_TEXT, END_OF_TEXT):  # the ids themselves, as OpenAI's tokenizer does
            return (self._id[piece],)
        symbols = [self._letters[byte] for byte in piece.encode("utf-8")]
        symbols[-1] += END_OF_WORD
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self._rank.get(pair, PAIRS))
            if best not in self._rank:
                break
            joined, i = [], 0
            while i < len(symbols):
                if tuple(symbols[i : i + 2]) == best:
                    joined.append(symbols[i] + symbols[i + 1])
                    i += 2
                else:
                    joined.append(symbols[i])
                    i += 1
            symbols = joined
        return tuple(self._id[symbol] for symbol in symbols)


@functools.cache
def get_tokenizer() -> Tokenizer:
    """The tokenizer, built at the first call."""
    return Tokenizer()


def tokenize(texts: str | list[str], text_length: int = 77, truncate: bool = False) -> Tensor:
    """Make the token ids that ``CLIP.encode_text`` takes.

    Args:
        texts: one text or n of them.
        text_length: T, the number of positions.
        truncate: cut overlong texts; their last token is still end-of-text.

    Returns:
        (n, T) long: start-of-text, the text, end-of-text, zeros.

    Raises:
        UserError: a text does not fit, and ``truncate`` is off; or something is not a text.
    """
    assert text_length >= 2, f"text_length {text_length}: start and end of text need two positions"
    tokenizer = get_tokenizer()
    texts = [texts] if isinstance(texts, str) else list(texts)
    tokens = torch.zeros(len(texts), text_length, dtype=torch.long)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"texts[{row}]: found {type(text).__name__}, expected str")
        ids = [tokenizer.start, *tokenizer.encode(text), tokenizer.end]
        if len(ids) > text_length:
            if not truncate:
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise UserError(
                    f"text {shown!r}: found {len(ids)} tokens, expected at most {text_length} "
                    "with start and end of text: shorten it, or pass truncate=True to cut it"
                )
            ids = [*ids[: text_length - 1], tokenizer.end]
        tokens[row, : len(ids)] = torch.tensor(ids)
    return tokens


def _letters_of_bytes() -> dict[int, str]:
    """A visible letter for every byte, in the order of the ids.

    The vocabulary file is text: bytes that Latin-1 shows stand for themselves, and the others for
    the letters from U+0100 on.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible}
    letters.update({byte: chr(256 + i) for i, byte in enumerate(hidden)})
    return letters
