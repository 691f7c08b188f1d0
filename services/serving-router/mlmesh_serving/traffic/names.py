"""How revisions are called."""


def revision_name(name: str, number: int) -> str:
    """Gives the name of a revision as Knative writes it, `iris-00003`; empty for number 0."""
    return f"{name}-{number:05d}" if number else ""


def revision_number(name: str, text: str) -> int:
    """Reads `3` or `iris-00003`; 0: it is neither.

    Args:
        name: Of the InferenceService.
        text: As a client wrote it.
    """
    digits = text.removeprefix(f"{name}-")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0
