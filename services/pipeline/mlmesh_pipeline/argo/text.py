"""Users' text in pod specifications: never taken for a variable, neither by Argo nor by Kubernetes."""

import re

NOTHING = "MLMESH_NOTHING"
"""An empty environment variable of the container: Kubernetes puts nothing in the place of `$(MLMESH_NOTHING)`."""
_BRACES = re.compile(r"\{(?=\{)")


def literal(text: str) -> str:
    """Writes a text so that Kubernetes makes of it, in a command, an argument or a variable, what it was.

    Argo puts values in the place of `{{...}}`, more than once, also in what it has put in; so two braces must never
    stand beside each other in what it sees. Kubernetes puts values in the place of `$(...)`, and takes `$$` for `$`.
    """
    return _BRACES.sub(f"{{$({NOTHING})", text.replace("$", "$$"))


def has_variable(text: str) -> bool:
    """Tells whether Argo would look for a variable in a text; where `literal` does not help, such text is refused."""
    return "{{" in text
