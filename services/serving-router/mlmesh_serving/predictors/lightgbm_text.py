"""The form of LightGBM's text files, checked before the library reads them: on a broken one it ends the process.

A file is a header of lines `key=value`, among them `tree_sizes` (bytes of each tree), then the trees, each a block of
such lines that begins with `Tree=<index>`, then `end of trees`. Inner nodes are numbered from 0, a child that is a leaf
is `~leaf`; an inner child comes behind its parent.
"""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

_END = b"\nend of trees"
_CATEGORICAL = 1
_MAX_LEAVES = 1 << 20
_NO_PAIR = re.compile(rb"^[^=\n]+$", re.MULTILINE)
_NUMBERS = re.compile(r"[-+0-9.e naif]*")
_OBJECTIVE_CLASSES = re.compile(r" num_class:(\d{1,9})\b")


def model_text(content: bytes) -> str:
    """Checks a model; gives it without what stands behind the trees: how it was trained, which predicting needs not.

    Raises:
        ValueError: It is broken; the message says where.
    """
    start, end = content.find(b"\nTree=0\n") + 1, content.find(_END)
    if not content.startswith(b"tree\n") or end < 0:
        raise ValueError("it does not begin with 'tree', or is cut off")
    header = _lines(content[: start or end])
    features = _whole(header, "max_feature_idx") + 1
    if not 1 <= features <= 1 << 24:
        raise ValueError("max_feature_idx is wrong")
    if len(header.get("feature_names", "").split(" ")) != features:
        raise ValueError("feature_names and max_feature_idx differ")
    _check_classes(header)
    sizes = header.get("tree_sizes", "").split()
    if not all(size.isascii() and size.isdecimal() for size in sizes):
        raise ValueError("tree_sizes holds what is no number")
    at = start
    for index, size in enumerate(map(int, sizes)):
        block = content[at : at + size]
        if size <= 0 or at + size > end + 1 or not block.startswith(b"Tree=%d\n" % index):
            raise ValueError(f"tree {index} does not lie where tree_sizes says")
        try:
            if _NO_PAIR.search(block):
                raise ValueError("it holds what is no key=value")
            _check_tree(_lines(block), features)
        except ValueError as error:
            raise ValueError(f"tree {index}: {error}") from error
        at += size
    if not sizes or b"Tree=" in content[at:end]:
        raise ValueError("tree_sizes does not say where all trees lie")
    return f"{content[:end].decode()}{_END.decode()}\n"


def _check_classes(header: Mapping[str, str]) -> None:
    """Checks how many numbers a row's answer has: the library takes room by one line, and fills it by another."""
    classes = _whole(header, "num_class")
    if classes < 1 or _whole(header, "num_tree_per_iteration") != classes:
        raise ValueError("num_class and num_tree_per_iteration differ")
    _whole(header, "label_index")
    objective = header.get("objective", "")
    said = _OBJECTIVE_CLASSES.search(objective)
    if ("multiclass" in objective and said is None) or (said is not None and int(said[1]) != classes):
        raise ValueError("objective and num_class differ")


def _check_tree(lines: Mapping[str, str], features: int) -> None:
    tree = {name: _numbers(name, value) for name, value in lines.items()}
    leaves, categories = _one(tree, "num_leaves"), _one(tree, "num_cat")
    if not 1 <= leaves <= _MAX_LEAVES:
        raise ValueError("num_leaves is wrong")
    _sized(tree, "leaf_value", leaves)
    inner = leaves - 1
    if not inner:
        return
    threshold = _sized(tree, "threshold", inner)
    split = _integers(tree, "split_feature", inner)
    if split.min() < 0 or split.max() >= features:
        raise ValueError("split_feature is beyond the features")
    nodes = np.arange(inner)
    for name in ("left_child", "right_child"):
        child = _integers(tree, name, inner)
        if child.min() < -leaves or child.max() >= inner or (child[child >= 0] <= nodes[child >= 0]).any():
            raise ValueError(f"{name} is beyond the tree, or leads back")
    if "decision_type" in tree:
        categorical = _integers(tree, "decision_type", inner) & _CATEGORICAL != 0
        if categorical.any():
            _check_categories(tree, threshold[categorical], categories)


def _check_categories(tree: Mapping[str, Numbers], threshold: Numbers, categories: int) -> None:
    bounds = _integers(tree, "cat_boundaries", categories + 1)
    words = len(tree.get("cat_threshold", ()))
    if bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != words:
        raise ValueError("cat_boundaries do not fit cat_threshold")
    if threshold.min() < 0 or threshold.max() >= categories:
        raise ValueError("threshold is beyond the categories")


def _lines(block: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.decode().split("\n"))
    return {key: value for key, _, value in pairs}


def _whole(lines: Mapping[str, str], name: str) -> int:
    text = lines.get(name, "")
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{name} is missing, or no number")
    return int(text)


def _numbers(name: str, text: str) -> Numbers:
    if not _NUMBERS.fullmatch(text):  # Python reads more as a number than the library does
        raise ValueError(f"{name[:50]!r} holds what is no number")
    try:
        return np.array(text.split(), np.float64)
    except ValueError as error:
        raise ValueError(f"{name[:50]!r} holds what is no number") from error


def _sized(tree: Mapping[str, Numbers], name: str, count: int) -> Numbers:
    numbers = tree.get(name)
    if numbers is None or len(numbers) != count:
        raise ValueError(f"{name} must hold {count} numbers")
    return numbers


def _integers(tree: Mapping[str, Numbers], name: str, count: int) -> NDArray[np.int64]:
    numbers = _sized(tree, name, count)
    if not (np.abs(numbers) < 1 << 52).all() or (numbers % 1 != 0).any():
        raise ValueError(f"{name} must hold integers")
    return numbers.astype(np.int64)


def _one(tree: Mapping[str, Numbers], name: str) -> int:
    return int(_integers(tree, name, 1)[0])
