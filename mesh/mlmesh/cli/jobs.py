"""Commands for what runs on the mesh."""


def run() -> None:
    """."""


def runs() -> None:
    """."""


def tune() -> None:
    """."""


def deploy() -> None:
    """."""


def predict() -> None:
    """."""


def lineage() -> None:
    """."""
