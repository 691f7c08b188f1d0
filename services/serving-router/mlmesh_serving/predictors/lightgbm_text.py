"""The form of LightGBM's text files, checked before the library reads them: on a broken one it ends the process.

A file is a header of lines `key=value`, among them `tree_sizes` (bytes of each tree), then the trees, each a block of
such lines that begins with `Tree=<index>`, then `end of trees`. Inner nodes are numbered from 0, a child that is a leaf
is `~leaf`; an inner child comes behind its parent.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    sizes = _numbers(header, "tree_sizes", np.dtype(np.int64)) if "tree_sizes" in header else np.zeros(0, np.int64)
    at = start
    for index, size in enumerate(sizes.tolist()):
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
    if not sizes.size or b"Tree=" in content[at:end]:
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


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    for name, value in tree.items():
        if not _NUMBERS.fullmatch(value):
            raise ValueError(f"{name[:50]!r} holds what is no number")
        _numbers(tree, name, np.dtype(float))
    _whole(tree, "num_cat")
    leaves = _whole(tree, "num_leaves")
    if not 1 <= leaves <= _MAX_LEAVES:
        raise ValueError("num_leaves is wrong")
    _sized(_numbers(tree, "leaf_value", np.dtype(float)), leaves, "leaf_value")
    inner = leaves - 1
    if not inner:
        return
    integers = np.dtype(np.int64)
    split = _sized(_numbers(tree, "split_feature", integers), inner, "split_feature")
    threshold = _sized(_numbers(tree, "threshold", np.dtype(float)), inner, "threshold")
    if split.min() < 0 or split.max() >= features:
        raise ValueError("split_feature is beyond the features")
    nodes = np.arange(inner)
    for name in ("left_child", "right_child"):
        child = _sized(_numbers(tree, name, integers), inner, name)
        if child.min() < -leaves or child.max() >= inner or (child[child >= 0] <= nodes[child >= 0]).any():
            raise ValueError(f"{name} is beyond the tree, or leads back")
    kinds = _sized(_numbers(tree, "decision_type", integers), inner, "decision_type") if "decision_type" in tree else 0
    categorical = np.asarray(kinds) & _CATEGORICAL != 0
    if np.any(categorical):
        _check_categories(tree, threshold[categorical])


def _check_categories(tree: Mapping[str, str], threshold: NDArray[Any]) -> None:
    count = _whole(tree, "num_cat")
    bounds = _sized(_numbers(tree, "cat_boundaries", np.dtype(np.int64)), count + 1, "cat_boundaries")
    words = len(_numbers(tree, "cat_threshold", np.dtype(np.int64)))
    if bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != words:
        raise ValueError("cat_boundaries do not fit cat_threshold")
    if threshold.min() < 0 or threshold.max() >= count:
        raise ValueError("threshold is beyond the categories")


def _lines(block: bytes) -> dict[str, str]:
    pairs = (line.partition("=") for line in block.decode().split("\n"))
    return {key: value for key, _, value in pairs}


def _whole(lines: Mapping[str, str], name: str) -> int:
    if not lines.get(name, "").isdecimal():
        raise ValueError(f"{name} is missing, or no number")
    return int(lines[name])


def _numbers(lines: Mapping[str, str], name: str, dtype: "np.dtype[Any]") -> NDArray[Any]:
    if name not in lines:
        raise ValueError(f"{name} is missing")
    try:
        return np.array(lines[name].split(), dtype)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name} holds what is no number") from error


def _sized(numbers: NDArray[Any], count: int, name: str) -> NDArray[Any]:
    if len(numbers) != count:
        raise ValueError(f"{name} must hold {count} numbers, got {len(numbers)}")
    return numbers
