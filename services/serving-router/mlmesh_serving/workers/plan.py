"""What a worker is told to load, and what it tells of it."""

from dataclasses import dataclass, field

from mlmesh_serving.datatypes import Limits, TensorInfo
from mlmesh_serving.manifest import InferenceServiceSpec
from mlmesh_serving.storage import LocalModel


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests are joined.

    Args:
        max_rows: Rows (first dimension) that are predicted at once. 1: requests are never joined.
        max_latency_seconds: How long the first of a batch may wait for others; 0: those that are there are joined, and
            nobody waits.
    """

    max_rows: int = 256
    max_latency_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ChainFiles:
    """Where the parts of a chain lie on this machine.

    Attributes:
        predictor: The model file, or its folder.
        code: What a model that is a class of the user's is made by; None: nothing of its own.
        preprocessor: Folder of the module; None: there is no such stage.
        postprocessor: As `preprocessor`.
        transformer: As `preprocessor`.
    """

    predictor: LocalModel
    code: LocalModel | None = None
    preprocessor: LocalModel | None = None
    postprocessor: LocalModel | None = None
    transformer: LocalModel | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A revision of a model, as a worker is told to load it.

    Attributes:
        spec: What the InferenceService says.
        files: Where it lies.
        version: Number of the revision, for answers.
        limits: Of requests.
        batching: How requests are joined.
    """

    spec: InferenceServiceSpec
    files: ChainFiles
    version: str
    limits: Limits
    batching: Batching = field(default_factory=Batching)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is known of a model once it is loaded.

    Attributes:
        platform: As the protocol's metadata names it.
        inputs: What it takes; empty: not known.
        outputs: What it gives; empty: not known.
        digest: SHA-256 of the model's content in hexadecimal; empty: not known.
    """

    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    digest: str = ""
