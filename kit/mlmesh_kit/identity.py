"""Who is calling. The ingress alone says it (header `kubeflow-userid`); see docs/profile.md."""

from contextvars import ContextVar
from dataclasses import dataclass

USER_HEADER = "kubeflow-userid"


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind the call that is being served.

    Attributes:
        user: As the identity provider names them, usually an e-mail address.
        default_namespace: Namespace meant where a request names none.
    """

    user: str
    default_namespace: str


ANONYMOUS = Caller("", "")
_caller: ContextVar[Caller] = ContextVar("mlmesh_caller", default=ANONYMOUS)


def current_caller() -> Caller:
    """Gives the caller of the RPC or HTTP request in whose context this runs; outside of one: `ANONYMOUS`."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Sets the caller of the current context (the interceptor and the HTTP routes do)."""
    _caller.set(caller)
