"""Reads the pickles that datasets are released as, without running what they may contain.

A pickle is a program. This reader knows numpy arrays and plain containers, and refuses everything
else before it is called. Pickles that Python 2 wrote are read too.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from stclip.errors import UserError


def load_pickle(path: str | Path) -> Any:
    """The object in a pickle of numpy arrays, numbers, texts, lists, tuples, dicts and sets.

    Byte strings of Python 2 come back as text (latin-1), which numpy's own reading needs.

    Raises:
        UserError: the file cannot be read, is not a pickle or is cut short, or asks for any other
            class or function; nothing of such a file is run.
    """
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


def _reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> Any:
    """Stands in for numpy's function of that name: makes empty arrays, of no subclass."""
    if kind is not np.ndarray:
        raise UserError(f"asks for an array of type {kind!r}; refused")
    return np.ndarray(shape, code)


def _scalar(dtype: Any, data: Any = None) -> Any:
    """Stands in for numpy's function of that name, whose object scalars could hold anything."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise UserError(f"asks for a number of type {dtype!r}; refused")
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> Any:
    """Stands in for numpy's function of that name (pickle protocol 5)."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _encode(text: Any, encoding: Any = None) -> bytes:
    """Stands in for _codecs.encode, in the one way Python 3 uses it for bytes in old protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UserError(f"asks to encode a text as {encoding!r}; refused")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
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
