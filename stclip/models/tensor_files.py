"""Reads what a file of weights holds, without running anything that it holds.

The first bytes tell the format, whatever the file is called:

- safetensors;
- what ``torch.save`` writes, zipped or in its old form: torch's reader of weights only;
- TorchScript archives, as OpenAI published CLIP: torch's own reader runs the program in them, which
  can write files, so their tensors are read here, by the names of the attributes that hold them.

Zip archives are checked before anything of them is read: sizes, encryption, and the checksum of
every member, so that a flipped bit is found and no file claims more memory than it is long.
"""

import argparse
import math
import pickletools
import re
import stat
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stclip.errors import UserError

_CHUNK = 1 << 20
# How often the tensors of a file may share what is stored, at most (weights that are tied).
_REUSE = 8
_ENCRYPTED = 0x1  # a member's flag
# How torch.save's old form begins: a pickle of its magic number.
_OLD_FORM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# Bounds on what modules of an archive hold; OpenAI's largest CLIP has some thousand attributes.
_MOST_ATTRIBUTES, _LONGEST_NAME = 100_000, 1000
# The most text of an archive's program that is looked at for its activation function, in bytes.
_MOST_CODE = 64 << 20

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_tensors(path: str | Path) -> Any:
    """What a file of weights holds, on the CPU: tensors, and the plain containers around them.

    Args:
        path: safetensors and TorchScript archives give {name: tensor}, ``torch.save`` what it got.
            Configs of yacs and of argparse, which training programs leave beside the weights, come
            as plain data.

    Raises:
        UserError: the file is missing, damaged, encrypted, of another format, or would have to run
            code.
    """
    path = Path(path)
    try:
        head = _head(path)
        if head[8:9] == b"{":  # eight bytes of length, then JSON
            return load_file(path)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                script = is_script(archive)
                _check_members(archive, path, script)
                if script:
                    return _read_script(archive)
                _check_sums(archive)
        # Plain data stands in for these classes: no code of the file's choosing runs.
        inert: list[Any] = [(OrderedDict, "yacs.config.CfgNode"), argparse.Namespace]
        # From an open file: given a path, torch would act on its suffix.
        with torch.serialization.safe_globals(inert), open(path, "rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except (zipfile.BadZipFile, SafetensorError, EOFError) as error:
        raise UserError(
            f"{path}: found a damaged file of weights ({_one_line(error)}); is it cut short, or "
            "has a disk or a transfer changed it? Fetch or copy it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(
            f"{path}: found no weights that can be read safely ({_one_line(error)}); expected a "
            "TorchScript archive, a state dict of torch.save, or safetensors: is the file cut "
            "short, or not made of weights only?"
        ) from error


def check_beginning(head: bytes, source: str) -> None:
    """Refuse what does not begin as a file of weights does.

    Args:
        head: the first bytes of it, 16 or more.
        source: what error messages call it.

    Raises:
        UserError: it is a page of HTML, say.
    """
    if head[8:9] == b"{" or head.startswith((b"PK", _OLD_FORM)):
        return
    if re.match(rb"(\xef\xbb\xbf)?\s*<", head):
        raise UserError(f"{source}: found a page of HTML or XML, expected a file of weights")
    raise UserError(f"{source}: found no file of weights (it begins with {head[:16]!r})")


def check_download(path: Path) -> None:
    """Refuse a file that is no whole file of weights, without loading it.

    Raises:
        UserError: it is cut short, damaged, or of another format.
    """
    head = _head(path)
    check_beginning(head, str(path))
    try:
        if head[8:9] == b"{":
            if int.from_bytes(head[:8], "little") + 8 > path.stat().st_size:
                raise EOFError("its header is longer than the file")
        elif head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                _check_members(archive, path, is_script(archive))
                _check_sums(archive)
                if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                    raise zipfile.BadZipFile("a zip archive without data.pkl")
    except (UserError, OSError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"{path}: found a damaged file of weights ({_one_line(error)})") from error


def check_tensors(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are no plain arrays, or that claim more values than are stored.

    Args:
        state: {name: tensor} of a file.
        source: what error messages call it.

    Raises:
        UserError: one of the tensors is sparse, quantised, without values, or repeats its values.
    """
    claimed, stored = 0, 0
    seen: set[int] = set()
    for name, tensor in state.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.device.type != "cpu":
            kind = tensor.device.type if plain else "sparse or quantised"
            raise UserError(f"{source}: found {name} as a {kind} tensor, expected a plain one")
        storage, size = tensor.untyped_storage(), tensor.numel() * tensor.element_size()
        claimed += size
        stored += 0 if storage.data_ptr() in seen else storage.nbytes()
        seen.add(storage.data_ptr())
        if size > storage.nbytes() or claimed > _REUSE * stored:
            raise UserError(
                f"{source}: found {name} of shape {tuple(tensor.shape)}, whose values are not all "
                "stored; expected whole tensors: call contiguous() on them before saving"
            )


def script_activation(path: Path) -> str | None:
    """The activation function of a TorchScript archive's MLPs, as the text of its program names it.

    Returns:
        gelu or quick_gelu; None if the file is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not is_script(archive):
                return None
            code = [m for m in archive.infolist() if re.search(r"/code/.*\.py$", m.filename)]
            if sum(member.file_size for member in code) > _MOST_CODE:
                return "quick_gelu"
            text = b"\n".join(archive.read(member) for member in code)
    except Exception:  # reported when the weights are read
        return None
    return "gelu" if re.search(rb"\bgelu\(", text) and b"1.702" not in text else "quick_gelu"


def is_script(archive: zipfile.ZipFile) -> bool:
    """Whether a zip archive is TorchScript's."""
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _head(path: Path, size: int = 16) -> bytes:
    if path.exists() and not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise UserError(f"{path}: found a device or pipe, expected a file of weights")
    with open(path, "rb") as file:
        return file.read(size)


def _check_members(archive: zipfile.ZipFile, path: Path, script: bool) -> None:
    """Refuse an archive whose members are not what PyTorch writes, by what its directory says."""
    members, size = archive.infolist(), path.stat().st_size
    if any(not 0 <= member.header_offset < size for member in members):
        raise zipfile.BadZipFile("a member lies outside the file")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("two members have one name")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise UserError(
                f"{path}: found an encrypted archive ({member.filename}), expected a file of "
                "weights: decrypt it first"
            )
    # Of TorchScript only the program may be compressed, and that is not run.
    read = [m for m in members if not script or re.search(r"/data(\.pkl$|/)", m.filename)]
    packed = [member.filename for member in read if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise UserError(
            f"{path}: found compressed members ({shorten(packed, 1)}), which PyTorch does not "
            "write; unpack the archive and save the weights again with torch.save"
        )
    if sum(member.file_size for member in read) > size:
        raise zipfile.BadZipFile("its members are larger than the file")


def _check_sums(archive: zipfile.ZipFile) -> None:
    """Compare every member's CRC-32; BadZipFile if one differs."""
    for member in archive.infolist():
        # torch.save writes 0 if checksums are turned off.
        if member.CRC and member.compress_type == zipfile.ZIP_STORED:
            with archive.open(member) as file:
                while file.read(_CHUNK):
                    pass


class _Global(NamedTuple):
    """The name of a class or function in a pickle; nothing is ever looked up by it."""

    name: str


class _Object:
    """Stands in for an object of a TorchScript class."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}


def _read_script(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """The tensors that a TorchScript archive's modules hold, as its state dict names them."""
    roots = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if not roots:
        raise ValueError("no data.pkl in the archive")
    prefix = roots[0].removesuffix("data.pkl")
    order = prefix + "byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("numbers in another byte order")
    storages: dict[str, Tensor] = {}

    def storage(reference: tuple[Any, ...]) -> Tensor:
        kind, type_, key, _, count = reference
        dtype = _STORAGES[type_.name.removeprefix("torch ")]
        if kind != "storage" or not isinstance(key, str):
            raise ValueError("a tensor that is not stored")
        if key not in storages:
            data = archive.read(f"{prefix}data/{key}")
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"{len(data)} bytes for {count} numbers of {dtype}")
            values = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0)
            storages[key] = values.to(dtype)
        return storages[key]

    root = _unpickle(archive.read(prefix + "data.pkl"), storage)
    found: dict[str, Tensor] = {}
    waiting = [("", root)]
    for name, value in waiting:  # grows meanwhile
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, _Object):
            for key, each in value.attributes.items():
                if len(waiting) == _MOST_ATTRIBUTES or len(name) + len(key) > _LONGEST_NAME:
                    raise ValueError("modules without end")
                waiting.append((f"{name}.{key}" if name else key, each))
    return found


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _unpickle(data: bytes, storage: Callable[[tuple[Any, ...]], Tensor]) -> Any:
    """What the pickle of a TorchScript archive describes, with ``_Object`` for every module.

    It follows the operations that PyTorch writes there and refuses others. No function that the
    pickle names is called: tensors are made here, of the archive's own storages.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def pop_to_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    for operation, argument, _ in pickletools.genops(data):
        match operation.name:
            case "PROTO":
                pass
            case "GLOBAL":
                stack.append(_Global(str(argument)))
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[operation.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(operation.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = pop_to_mark()
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                key, item = stack[-2:]
                del stack[-2:]
                stack[-1][key] = item
            case "SETITEMS":
                items = pop_to_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "NEWOBJ":
                stack[-2:] = [_Object()]
            case "BUILD":
                state = stack.pop()
                # Another state is one that the class's own program would take apart.
                if isinstance(stack[-1], _Object) and isinstance(state, dict):
                    stack[-1].attributes = state
            case "REDUCE":
                function, arguments = stack[-2:]
                stack[-2:] = [_reduce(function.name, arguments)]
            case "STOP":
                return stack.pop()
            case other:
                raise ValueError(f"{other} in the archive's pickle")
    raise ValueError("a pickle without an end")


def _reduce(function: str, arguments: tuple[Any, ...]) -> Any:
    """What PyTorch's functions of these names would make; None in place of anything else."""
    if function == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        numbers = (offset, *shape, *strides)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a tensor of no shape")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if math.prod(shape) and (last >= len(storage) or math.prod(shape) > len(storage)):
            raise ValueError("a tensor beyond its storage")
        return storage.as_strided(shape, strides, offset)
    if function == "collections OrderedDict":
        return {}
    if function.startswith("torch.jit._pickle "):  # lists and dicts that know their type
        return arguments[0]
    return None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."


def shorten(names: Iterable[str], shown: int = 4) -> str:
    """Some names for an error message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
