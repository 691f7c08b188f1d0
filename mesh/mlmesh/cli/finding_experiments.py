"""Where experiments and trials are, by what the user calls them."""

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlmesh.cli.output import fail

if TYPE_CHECKING:
    from mlmesh.cli.client import Ingress

DEFAULT_NAMESPACE = "default"
BEST = "best"
"""Stands for the best trial so far."""
_REFUSED, _NOT_FOUND = 400, 404


@dataclass(frozen=True)
class Address:
    """Where an experiment is.

    Attributes:
        namespace: Its namespace.
        name: Its name.
    """

    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Its path at the ingress."""
        return f"{experiments_path(self.namespace)}/{quote(self.name, safe='')}"

    def trial(self, name: str) -> str:
        """Gives the path of one of its trials at the ingress."""
        return f"{self.path}/trials/{quote(name, safe='')}"

    def command(self, verb: str) -> str:
        """Gives the command that does something with it."""
        return f"mlmesh tune {verb} {shlex.quote(self.name)}{in_namespace(self.namespace)}"


def experiments_path(namespace: str) -> str:
    """Gives the path of a namespace's experiments at the ingress."""
    return f"/katib/v1/namespaces/{quote(namespace, safe='')}/experiments"


def in_namespace(namespace: str) -> str:
    """Gives the option that says a namespace; empty for the default one."""
    return "" if namespace == DEFAULT_NAMESPACE else f" -n {shlex.quote(namespace)}"


@contextlib.contextmanager
def explained(address: Address, *, as_json: bool, trial: str = "") -> Iterator[None]:
    """Ends the command where the service refuses what is asked for, or does not know it, with what to do next."""
    from mlmesh.cli.client import IngressError

    try:
        yield
    except IngressError as error:
        if error.status == _REFUSED:
            fail(f"{error}; see how it is with: {address.command('show')}", as_json=as_json)
        if error.status != _NOT_FOUND:
            raise
        lists = f"experiments: mlmesh tune list{in_namespace(address.namespace)}"
        if trial:
            lists += f"; trials: {address.command('trials')}"
        fail(f"{error}; see which there are, {lists}", as_json=as_json)


def trial_name(mesh: "Ingress", address: Address, given: str, as_json: bool) -> str:
    """Completes what the user calls a trial: its name, its number, or `best`."""
    if given.isascii() and given.isdigit():
        return f"{address.name}-{int(given)}"
    if given != BEST:
        return given
    status = mesh.get(address.path).get("status", {})
    found = str(status.get("current_optimal_trial", {}).get("best_trial_name", ""))
    if not found:
        fail(
            f"experiment {address.name} has no best trial yet; see its trials with: {address.command('trials')}",
            as_json=as_json,
        )
    return found
