"""YAML from an untrusted source: a bounded document of plain values, or an error."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 2**20
"""A longer sweep file is refused unread."""

MAX_VALUES = 100_000
"""The most values of a document with aliases expanded: a few nested anchors can expand to billions."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that rejects duplicate keys and reads `1e-4` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        seen = set()
        for key_node, _ in node.value:
            key = None if key_node.tag == merge else self.construct_object(key_node, deep=deep)
            if key is not None and isinstance(key, Hashable):
                if key in seen:
                    line = node.start_mark.line + 1
                    raise yaml.YAMLError(
                        f"the key `{key}` is given twice in the block at line {line}"
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(text: str) -> Any:
    """The one document of a YAML text, of plain values only.

    Raises:
        ValueError: not YAML, a tag of another type, a key given twice, nested too deeply, longer than
        MAX_BYTES, or more than MAX_VALUES values. The message is one line.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES:,} characters")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES:,} values with aliases expanded")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (yaml.YAMLError, ValueError) as error:  # Invalid dates, numbers of 5,000 digits.
        raise ValueError(" ".join(str(error).split())[:500]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of nodes with aliases expanded; every 100 characters of a text count as one more.

    `known` are those counted before.

    Raises: ValueError: a node contains itself.
    """
    found = known.get(id(node))
    if found == 0:
        raise ValueError(f"an alias of its own block at line {node.start_mark.line + 1}")
    if found is None:
        known[id(node)] = 0
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        length = len(node.value) // 100 if isinstance(node, yaml.ScalarNode) else 0
        found = known[id(node)] = 1 + length + sum(_values(part, known) for part in parts)
    return found
