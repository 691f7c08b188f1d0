"""filter_query: conditions on nodes and their neighbours, in the syntax of ML Metadata (GoogleSQL expressions)."""

from mlmesh_metadata.filtering.expression import (
    Arithmetic,
    Column,
    Comparison,
    Expression,
    InList,
    IsNull,
    Literal,
    Logical,
    Neighbour,
    Not,
)
from mlmesh_metadata.filtering.parser import parse_filter

__all__ = [
    "Arithmetic",
    "Column",
    "Comparison",
    "Expression",
    "InList",
    "IsNull",
    "Literal",
    "Logical",
    "Neighbour",
    "Not",
    "parse_filter",
]
