"""ENAS, under Katib's name, settings and forms of architectures; the controller is in `enas_controller`.

The controller is trained on the trials in their order, at each call from its beginning: what it has learned is in
the trials, and not on a disk. How far it came is remembered in memory, which saves time and changes nothing.
"""

import hashlib
import itertools
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mlmesh_kit.errors import InvalidArgument

from mlmesh_katib.algorithms import nas
from mlmesh_katib.algorithms.base import Algorithm, Answer, Question, Suggestion, generator, whole_number
from mlmesh_katib.algorithms.enas_controller import Architecture, Controller, ControllerSettings

_FLOATS = {  # above the first, at most the second
    "controller_temperature": (0.0, math.inf),
    "controller_tanh_const": (0.0, math.inf),
    "controller_entropy_weight": (0.0, math.inf),
    "controller_baseline_decay": (0.0, 1.0),
    "controller_learning_rate": (0.0, 1.0),
    "controller_skip_target": (0.0, 1.0),
    "controller_skip_weight": (0.0, math.inf),
}
_INTS = {"controller_hidden_size": 512, "controller_train_steps": 1000, "controller_log_every_steps": 2**31 - 1}
_MAY_BE_NONE = (
    "controller_temperature",
    "controller_tanh_const",
    "controller_entropy_weight",
    "controller_skip_weight",
)
_ATTRIBUTES = {
    "hidden": "controller_hidden_size",
    **{name.removeprefix("controller_"): name for name in (*_FLOATS, "controller_train_steps")},
}
_GUESSES = 50
_LISTED = 4096
_REMEMBERED_BYTES = 64 << 20

_Batch = tuple[tuple[Architecture, float], ...]


class Enas(Algorithm):
    """Draws architectures from a recurrent policy that learns which gave more."""

    name = "enas"
    reads_assignments = True
    ignores_prior = True
    searches_architectures = True

    def validate(self, question: Question) -> None:
        """See Algorithm."""
        if question.nas is None:
            raise InvalidArgument("enas needs nasConfig", field="nasConfig")
        nas.sizes(question.nas, "inputSizes")
        nas.sizes(question.nas, "outputSizes")
        nas.layers(question.nas)
        nas.check_operations(question.nas)
        for name, value in question.settings.items():
            if name == "random_state":
                whole_number(question.settings, name, smallest=0, largest=2**32 - 1)
            else:
                _check_setting(name, value)

    def check(self, question: Question) -> None:
        """See Algorithm; Katib's validation does not ask for operations."""
        self.validate(question)
        nas.operations(question.nas or {})

    def answer(self, question: Question, count: int) -> Answer:
        """See Algorithm."""
        config = question.nas or {}
        layers, operations = nas.layers(config), nas.operations(config)
        known = [_parse(trial.assignments, layers, len(operations)) for trial in question.trials]
        finished = [
            (architecture, -float(trial.loss))  # the policy looks for more
            for architecture, trial in zip(known, question.trials, strict=True)
            if architecture is not None and trial.loss is not None
        ]
        size = max(1, question.parallel)
        batches = [tuple(finished[first : first + size]) for first in range(0, len(finished), size)]
        settings = _controller_settings(question.settings)
        seed = question.settings.get("random_state")
        # Without a seed the beginning is the experiment's own, so that training can be repeated; what is drawn is not.
        start = int.from_bytes(hashlib.sha256(question.experiment.encode()).digest()[:4]) if seed is None else int(seed)
        controller = _trained(settings, layers, len(operations), start, batches)
        random = generator(question.settings, question.made)
        tried = {architecture for architecture in known if architecture is not None}
        drawn = _draw(controller, random, tried, count)
        return Answer([_suggestion(architecture, operations, config) for architecture in drawn])


def _check_setting(name: str, value: str) -> None:
    field = f"algorithmSettings.{name}"
    if name not in _FLOATS and name not in _INTS:
        raise InvalidArgument(f"Unknown Algorithm Setting name: {name}", field=field)
    if name in _MAY_BE_NONE and value == "None":
        return
    kind = "float" if name in _FLOATS else "int"
    try:
        number = float(value) if name in _FLOATS else int(value)
    except ValueError:
        raise InvalidArgument(f"Algorithm Setting {name} must be {kind} type", field=field) from None
    if name in _FLOATS:
        low, high = _FLOATS[name]
        is_inside, limits = low < number <= high and math.isfinite(number), f"({low:g}, {high:g}]"
    else:
        is_inside, limits = 1 <= number <= _INTS[name], f"[1, {_INTS[name]}]"
    if not is_inside:
        message = f"Algorithm Setting {name}: {value} with {kind} type must be in range {limits}"
        raise InvalidArgument(message, field=field)


def _controller_settings(settings: Mapping[str, str]) -> ControllerSettings:
    given: dict[str, Any] = {}
    for attribute, name in _ATTRIBUTES.items():
        if name in settings:
            value = settings[name]
            given[attribute] = None if value == "None" else int(value) if name in _INTS else float(value)
    return ControllerSettings(**given)


class _Memory:
    """Controllers that were trained, by what they were trained on; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Controller] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> Controller | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: bytes, controller: Controller) -> None:
        with self._lock:
            if key not in self._known:
                self._known[key] = controller
                self._bytes += controller.nbytes
            while self._bytes > _REMEMBERED_BYTES and len(self._known) > 1:
                _, forgotten = self._known.popitem(last=False)
                self._bytes -= forgotten.nbytes


_MEMORY = _Memory()


def _trained(
    settings: ControllerSettings, layers: int, operations: int, seed: int, batches: Sequence[_Batch]
) -> Controller:
    """Trains on batches one after the other, from the last state on that is remembered."""
    keys = [hashlib.sha256(repr((settings, layers, operations, seed)).encode()).digest()]
    for batch in batches:
        keys.append(hashlib.sha256(keys[-1] + repr(batch).encode()).digest())
    done = len(batches)
    while done and _MEMORY.get(keys[done]) is None:
        done -= 1
    remembered = _MEMORY.get(keys[done]) if done else None
    if remembered is None:
        done, controller = 0, Controller.new(settings, layers, operations, (seed, layers, operations))
    else:
        controller = remembered
    for number in range(done, len(batches)):
        architectures, rewards = zip(*batches[number], strict=True)
        controller = controller.train(architectures, rewards)
        _MEMORY.put(keys[number + 1], controller)
    return controller


def _draw(
    controller: Controller, random: np.random.Generator, tried: set[Architecture], count: int
) -> list[Architecture]:
    """Draws architectures that were not tried; from the policy, and where it has no new ones, any."""
    layers, operations = controller.layers, controller.operations
    size = operations**layers * 2 ** (layers * (layers - 1) // 2)
    found: list[Architecture] = []
    while len(found) < count and len(tried) < size:
        guesses = (controller.sample(random) for _ in range(_GUESSES))
        new = next((guess for guess in guesses if guess not in tried), None)
        if new is None and size <= _LISTED:
            left = [architecture for architecture in _all(layers, operations) if architecture not in tried]
            new = left[int(random.integers(len(left)))]
        while new is None or new in tried:
            new = tuple(
                (int(random.integers(operations)), *(int(skip) for skip in random.integers(2, size=layer)))
                for layer in range(layers)
            )
        tried.add(new)
        found.append(new)
    return found


def _all(layers: int, operations: int) -> Iterator[Architecture]:
    choices = [
        [(operation, *skips) for operation in range(operations) for skips in itertools.product((0, 1), repeat=layer)]
        for layer in range(layers)
    ]
    return itertools.product(*choices)


def _suggestion(
    architecture: Architecture, operations: Sequence[nas.Operation], config: Mapping[str, Any]
) -> Suggestion:
    used = {layer[0]: operations[layer[0]] for layer in architecture}
    description = {
        "num_layers": len(architecture),
        "input_sizes": nas.sizes(config, "inputSizes"),
        "output_sizes": nas.sizes(config, "outputSizes"),
        "embedding": {
            number: {"opt_id": number, "opt_type": operation.kind, "opt_params": dict(operation.parameters)}
            for number, operation in used.items()
        },
    }
    return Suggestion({"architecture": nas.dump(architecture), "nn_config": nas.dump(description)})


def _parse(assignments: Mapping[str, str], layers: int, operations: int) -> Architecture | None:
    """Reads a trial's architecture; None if it is none of this search."""
    try:
        found = json.loads(assignments.get("architecture", "").replace("'", '"'))
        architecture = tuple(tuple(int(value) for value in layer) for layer in found)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    fits = len(architecture) == layers and all(
        len(layer) == number + 1 and 0 <= layer[0] < operations and set(layer[1:]) <= {0, 1}
        for number, layer in enumerate(architecture)
    )
    return architecture if fits else None
