"""Where models and their revisions are, by what the user calls them."""

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from mlmesh.cli.output import fail

DEFAULT_NAMESPACE = "default"
_REFUSED, _NOT_FOUND, _CONFLICT = 400, 404, 409


@dataclass(frozen=True)
class Model:
    """Where an InferenceService is.

    Attributes:
        namespace: Its namespace.
        name: Its name.
    """

    namespace: str
    name: str

    @classmethod
    def named(cls, text: str, namespace: str = "") -> "Model":
        """Reads `NAME`, or `NAMESPACE.NAME` as clients of the model write it."""
        first, dot, rest = text.partition(".")
        return cls(namespace or first, rest) if dot else cls(namespace or DEFAULT_NAMESPACE, text)

    @property
    def path(self) -> str:
        """Its path at the ingress."""
        return f"{models_path(self.namespace)}/{quote(self.name, safe='')}"

    @property
    def revisions(self) -> str:
        """The path of its revisions at the ingress."""
        return f"{self.path}/revisions"

    def command(self, verb: str, rest: str = "") -> str:
        """Gives the command that does something with it."""
        option = "" if self.namespace == DEFAULT_NAMESPACE else f" -n {shlex.quote(self.namespace)}"
        return f"mlmesh {verb} {shlex.quote(self.name)}{rest}{option}"


def models_path(namespace: str) -> str:
    """Gives the path of a namespace's InferenceServices at the ingress."""
    return f"/serving/v1/namespaces/{quote(namespace, safe='')}/inferenceservices"


@contextlib.contextmanager
def explained(model: Model, *, as_json: bool) -> Iterator[None]:
    """Ends the command where the service refuses what is asked for, or does not know it, with what to do next."""
    from mlmesh.cli.client import IngressError

    try:
        yield
    except IngressError as error:
        where = "" if model.namespace == DEFAULT_NAMESPACE else f" -n {shlex.quote(model.namespace)}"
        if error.status == _NOT_FOUND and "revision" in str(error):
            fail(f"{error}; see which there are with: {model.command('models')}", as_json=as_json)
        if error.status == _NOT_FOUND:
            fail(f"{error}; see which models there are with: mlmesh models{where}", as_json=as_json)
        if error.status in {_REFUSED, _CONFLICT}:
            fail(f"{error}\nnothing has changed; see how it is with: {model.command('models')}", as_json=as_json)
        raise
