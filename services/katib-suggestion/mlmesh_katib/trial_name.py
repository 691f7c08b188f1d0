"""Which trial is meant by the name in Katib's requests, which say no namespace."""

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument

from mlmesh_katib.store import KatibStore

MAX_NAMESPACE = 63


def split(given: str) -> tuple[str | None, str]:
    """Splits `NAMESPACE/TRIAL`, which is how a request can say it; of a name alone the namespace is None.

    Raises:
        InvalidArgument: A part is missing or too long.
    """
    namespace, slash, name = given.rpartition("/")
    if not slash:
        return None, name
    if not name or not 0 < len(namespace) <= MAX_NAMESPACE:
        message = f"must be TRIAL or NAMESPACE/TRIAL, the namespace of 1 to {MAX_NAMESPACE} characters"
        raise InvalidArgument(message, field="trial_name")
    return namespace, name


def locate(store: KatibStore, given: str) -> tuple[str, str]:
    """Finds the namespace of a trial. Blocks.

    Args:
        store: Knows the trials of the experiments here.
        given: `TRIAL` or `NAMESPACE/TRIAL`.

    Returns:
        (namespace, name). Of a name alone it is the only trial of that name, or the only one that has not ended; the
        namespace is empty where there is none: it belongs to a Katib controller somewhere else.

    Raises:
        FailedPrecondition: Several are meant.
        InvalidArgument: See `split`.
    """
    namespace, name = split(given)
    if namespace is not None:
        return namespace, name
    known = store.trials_named(name)
    found = [where for where, ended in known if not ended] or [where for where, _ in known]
    if len(found) > 1:
        raise several(name, found)
    return (found[0] if found else ""), name


def several(name: str, namespaces: list[str]) -> FailedPrecondition:
    """Says that a name alone does not tell which trial is meant."""
    where = ", ".join(namespaces[:10])
    return FailedPrecondition(f"there is a trial {name} in several namespaces ({where}): give NAMESPACE/{name}")
