"""Yaml text into plain values, within bounds: a config may come from a stranger."""

from pathlib import Path
from typing import Any

import yaml

from stclip.config.reference_keys import short
from stclip.errors import UserError
from stclip.files import check_regular

# Far above any config, and low enough that the slow parser of PyYAML stays within seconds.
_CHARACTERS, _NODES, _DEPTH = 200_000, 20_000, 30
_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> Any:
    """What a yaml file holds; see ``parse_yaml``.

    Raises:
        UserError: the file cannot be read, or ``parse_yaml`` refuses it.
    """
    check_regular(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(_CHARACTERS + 1)
    except OSError as error:
        raise UserError(f"{path}: config file cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8; or a NUL in the path
        raise UserError(f"{path}: not valid yaml: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Plain values: mappings, lists, text, numbers, None and what else yaml writes without tags.

    Args:
        text: one yaml document.
        source: what to call it in an error.

    Raises:
        UserError: it is no yaml, has a key twice in one mapping, tags of Python objects, or is
            larger or deeper than any config, aliases (``*name``) counted as what they stand for.
    """
    if not isinstance(text, str):
        raise UserError(f"{source}: yaml text expected, found {type(text).__name__}")
    if len(text) > _CHARACTERS:
        raise UserError(f"{source}: a config of at most {_CHARACTERS:,} characters expected")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, source)
        return loader.construct_document(node)
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{source}: not a config: its values are nested too deeply") from error
    except Exception as error:  # a value that its tag cannot have raises nearly anything
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: not valid yaml: {reason:.300}") from error


def _check(root: yaml.Node, source: str) -> None:
    """Reject duplicate keys, and documents that would expand beyond the bounds.

    An alias counts as a copy of the node that it names, including everything inside.
    """
    left, count = [(root, 0)], 0
    while left:
        node, depth = left.pop()
        count += 1
        if count > _NODES or depth > _DEPTH:
            raise UserError(
                f"{source}: not a config: more than {_NODES:,} values, or more than {_DEPTH} "
                "levels deep, aliases (*name) counted as what they stand for"
            )
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, source)
            left += [(child, depth + 1) for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += [(child, depth + 1) for child in node.value]


def _check_keys(node: yaml.MappingNode, source: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        line = key.start_mark.line + 1
        if key.value in lines:
            raise UserError(
                f"{source}: line {line}: the key {short(key.value)} was set in line "
                f"{lines[key.value]} already; leave one of them"
            )
        lines[key.value] = line
