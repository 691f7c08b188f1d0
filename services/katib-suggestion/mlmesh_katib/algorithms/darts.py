"""DARTS: H. Liu, K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019.

The search is one trial, which holds all operations at once and learns their weights. What is suggested is what that
trial has to know, in the form that Katib's training image reads.
"""

from collections.abc import Mapping

from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms import nas
from mlmesh_katib.algorithms.base import Algorithm, Answer, Question, Suggestion, real_number, whole_number

_DEFAULTS: Mapping[str, int | float] = {
    "num_epochs": 50,
    "w_lr": 0.025,
    "w_lr_min": 0.001,
    "w_momentum": 0.9,
    "w_weight_decay": 3e-4,
    "w_grad_clip": 5.0,
    "alpha_lr": 3e-4,
    "alpha_weight_decay": 1e-3,
    "batch_size": 128,
    "num_workers": 4,
    "init_channels": 16,
    "print_step": 50,
    "num_nodes": 4,
    "stem_multiplier": 3,
}
_REALS = ("w_lr", "w_lr_min", "alpha_lr", "w_weight_decay", "alpha_weight_decay", "w_momentum", "w_grad_clip")
_COUNTS = ("batch_size", "init_channels", "print_step", "num_nodes", "stem_multiplier")
_SKIP = "skip_connection"


class Darts(Algorithm):
    """Tells the one trial its search space; each trial is told the same."""

    name = "darts"
    ignores_prior = True
    searches_architectures = True
    takes_texts = True

    def validate(self, question: Question) -> None:
        """See Algorithm. Settings that are not known are handed to the trial, as in Katib."""
        if question.nas is None:
            raise InvalidArgument("darts needs nasConfig", field="nasConfig")
        nas.check_operations(question.nas)
        settings = question.settings
        if "num_epochs" in settings and whole_number(settings, "num_epochs", smallest=0) == 0:
            raise InvalidArgument("num_epochs should be greater than zero", field="algorithmSettings.num_epochs")
        for name in _REALS:
            if name in settings and real_number(settings, name) < 0:
                message = f"{name} should be greater than or equal to zero"
                raise InvalidArgument(message, field=f"algorithmSettings.{name}")
        if "num_workers" in settings:
            whole_number(settings, "num_workers", smallest=0)
        for name in _COUNTS:
            if name not in settings or (name == "batch_size" and settings[name] == "None"):
                continue
            if whole_number(settings, name, smallest=-(2**31)) < 1:
                message = f"{name} should be greater than or equal to one"
                raise InvalidArgument(message, field=f"algorithmSettings.{name}")

    def check(self, question: Question) -> None:
        """See Algorithm; Katib's validation does not look at the layers, nor at whether there are operations."""
        self.validate(question)
        nas.layers(question.nas or {})
        _search_space(question)

    def answer(self, question: Question, count: int) -> Answer:
        """See Algorithm."""
        given = {name: None if value == "None" else value for name, value in question.settings.items()}
        assignments = {
            "algorithm-settings": nas.dump({**_DEFAULTS, **given}),
            "search-space": nas.dump(_search_space(question)),
            "num-layers": str(nas.layers(question.nas or {})),
        }
        return Answer([Suggestion(assignments)] * count)


def _search_space(question: Question) -> list[str]:
    """Gives the names of the operations, one for each size of their filters."""
    names = []
    for kind, filters in nas.lists(question.nas or {}):
        names += [kind] if kind == _SKIP else [f"{kind}_{size}x{size}" for size in filters]
    if not names:
        message = "operations must hold one whose first parameter is a list of filter sizes"
        raise InvalidArgument(message, field="nasConfig.operations")
    return names
