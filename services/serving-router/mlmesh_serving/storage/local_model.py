"""What was brought to this machine."""

from dataclasses import dataclass
from pathlib import Path

from mlmesh_kit.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model, or the code of a stage, as it lies on this machine.

    Attributes:
        path: A file or a folder.
        uri: Where it came from; of a registered model: where that lies.
        digest: SHA-256 of the content in hexadecimal (`storage.digest`).
        may_run_code: Whether it lies below a root whose pickles and code may be run.
        field: Where the manifest says it, for messages.
    """

    path: Path
    uri: str
    digest: str
    may_run_code: bool
    field: str

    def check_code(self, what: str) -> None:
        """Checks that what can run code may be loaded from here.

        Args:
            what: For the message: a pickle, Python code.

        Raises:
            FailedPrecondition: It may not.
        """
        if not self.may_run_code:
            raise FailedPrecondition(code_refused(self.field, what))

    def file(self, *suffixes: str) -> Path:
        """Gives the model's file: the path itself, or the one file of the folder with one of the suffixes.

        Raises:
            FailedPrecondition: There is none, or more than one.
        """
        expected = ", ".join(f"*{suffix}" for suffix in suffixes)
        if self.path.is_file():
            if self.path.suffix not in suffixes:
                raise FailedPrecondition(f"the model file must be one of {expected}, got {self.path.name!r}")
            return self.path
        found = sorted(file for file in self.path.iterdir() if file.suffix in suffixes and file.is_file())
        if len(found) != 1:
            raise FailedPrecondition(f"the folder must hold exactly one model file ({expected}), got {len(found)}")
        return check_inside(self.path, found[0])

    def inner(self, name: str) -> "LocalModel":
        """Gives what has a name (with `/`) in the folder.

        Raises:
            FailedPrecondition: There is none, or it lies outside.
        """
        path = check_inside(self.path, self.path / name)
        if not path.exists():
            raise FailedPrecondition(f"the model's folder holds no {name!r}")
        return LocalModel(path, self.uri, self.digest, self.may_run_code, self.field)


def check_inside(folder: Path, file: Path) -> Path:
    """Gives a file of a folder; symbolic links must not lead out of it.

    Raises:
        FailedPrecondition: They do.
    """
    if not file.resolve().is_relative_to(folder.resolve()):
        raise FailedPrecondition(f"{file.name} is a link that leads out of its folder")
    return file


def code_refused(field: str, what: str) -> str:
    """Gives the message for code from a place that may not run any."""
    return (
        f"{field}: {what} can run any code, and is loaded only from below the roots that "
        "MLMESH_SERVING_PICKLE_ROOTS names (and MLMESH_SERVING_MODEL_ROOTS)"
    )
