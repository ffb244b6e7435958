"""Reads the pickles that datasets are released as, without running what they may contain.

A pickle is a program. This reader knows numpy arrays and plain containers, and refuses everything
else before it is called. Pickles that Python 2 wrote are read too.
"""

import math
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from stclip.errors import UserError
from stclip.files import check_regular

# Booleans, whole and other numbers, texts; not objects, records or raw memory.
_DTYPE = re.compile(r"[biufcSU][0-9]+")


def load_pickle(path: str | Path) -> Any:
    """The object in a pickle of numpy arrays, numbers, texts, lists, tuples, dicts and sets.

    Byte strings of Python 2 come back as text (latin-1), which numpy's own reading needs.

    Raises:
        UserError: the file cannot be read, is not a pickle or is cut short, or asks for any other
            class or function; nothing of such a file is run.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file:
            return _Reader(file, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        detail = " ".join(str(error).split())
        raise UserError(
            f"{path}: not a readable pickle ({type(error).__name__}: {detail}); is the file cut "
            "short? Fetch it again"
        ) from error


class _ArrayType:
    """Stands in for numpy.ndarray where a pickle only names it."""


class _Dtype:
    """Stands in for numpy.dtype: numbers and texts of fixed size, nothing that holds objects.

    numpy's own class takes any state from a pickle, also one that makes it follow pointers which
    the file chose.
    """

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise UserError(f"asks for an array of {code!r:.40}; refused")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        _, self._order, base, names, fields, *_ = state
        if self._order not in ("<", ">", "=", "|") or (base, names, fields) != (None, None, None):
            raise UserError("asks for an array of records; refused")

    def real(self) -> np.dtype[Any]:
        """The type itself."""
        real: np.dtype[Any] = np.dtype(self._order + self._code)
        return real


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array whose state is checked before numpy sees it."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, bytes):
            raise UserError(f"asks for an array of {type(data).__name__}; refused")
        sizes = tuple(int(size) for size in shape)
        kind = _real(dtype)
        if math.prod(sizes) * kind.itemsize != len(data) or min(sizes, default=0) < 0:
            raise UserError(f"holds {len(data)} bytes for an array of shape {sizes} of {kind}")
        super().__setstate__((1, sizes, kind, bool(fortran), data))  # type: ignore[arg-type]


def _reconstruct(kind: Any, *_: Any) -> _Array:
    """Stands in for numpy's function of that name: an empty array, to be filled by its state."""
    if kind is not _ArrayType:
        raise UserError(f"asks for an array of type {kind!r:.40}; refused")
    return np.empty(0, np.uint8).view(_Array)


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Stands in for numpy's function of that name, whose object scalars could hold anything."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=_real(dtype), count=1)[0]


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    """Stands in for numpy's function of that name (pickle protocol 5)."""
    return np.frombuffer(buffer, dtype=_real(dtype)).reshape(shape, order=order)


def _real(dtype: Any) -> np.dtype[Any]:
    if type(dtype) is not _Dtype:
        raise UserError(f"asks for an array of {dtype!r:.40}; refused")
    return dtype.real()


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Stands in for _codecs.encode, in the one way Python 3 uses it for bytes in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UserError(f"asks to encode a text as {encoding!r}; refused")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (module, name): value
        for module in ("builtins", "__builtin__")
        for name, value in {
            "set": set,
            "frozenset": frozenset,
            "bytes": bytes,
            "bytearray": bytearray,
            "complex": complex,
        }.items()
    },
    **{
        (f"numpy.{core}.{module}", name): value
        for core in ("core", "_core")
        for module, name, value in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise UserError(
                f"this pickle asks for {module_name}.{global_name}, but only numpy arrays and "
                "plain containers are read; refused, nothing of it was run"
            ) from None
