"""The recurrent controller of ENAS: a policy over architectures, and its gradient; in NumPy.

H. Pham, M. Guan, B. Zoph, Q. Le, J. Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018,
section 2.2 (macro search). Trained by REINFORCE: R. J. Williams, "Simple Statistical Gradient-Following Algorithms for
Connectionist Reinforcement Learning", Machine Learning 8 (1992), with Adam.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Architecture = tuple[tuple[int, ...], ...]
"""Of each layer: its operation, then for each layer before it 1 if it is an input too, else 0."""

_WIDTH = 0.01
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Katib's settings of the controller.

    Attributes:
        hidden: Size of its state.
        temperature: Logits are divided by it; None: they are not.
        tanh_const: Logits are within plus and minus this; None: anything.
        entropy_weight: What entropy is worth, in rewards; None: nothing.
        baseline_decay: How much of the baseline is kept with each reward.
        learning_rate: Of Adam.
        skip_target: Wished share of connections that skip layers.
        skip_weight: What it costs to be elsewhere; None: nothing.
        train_steps: Steps of the gradient with each batch of trials.
    """

    hidden: int = 64
    temperature: float | None = 5.0
    tanh_const: float | None = 2.25
    entropy_weight: float | None = 1e-5
    baseline_decay: float = 0.999
    learning_rate: float = 5e-5
    skip_target: float = 0.4
    skip_weight: float | None = 0.8
    train_steps: int = 50


@dataclass(frozen=True, slots=True)
class Controller:
    """A state of the policy; training gives another.

    Attributes:
        settings: Katib's.
        layers: Of an architecture.
        operations: That a layer may be.
        weights: By name.
        moments: Adam's, first and second, by name.
        steps: Taken so far.
        baseline: Mean of the rewards, the recent ones first; None: there was none yet.
    """

    settings: ControllerSettings
    layers: int
    operations: int
    weights: Mapping[str, Array]
    moments: Mapping[str, tuple[Array, Array]]
    steps: int = 0
    baseline: float | None = None

    @classmethod
    def new(cls, settings: ControllerSettings, layers: int, operations: int, seed: Sequence[int]) -> "Controller":
        """Makes a policy that knows nothing yet: nearly uniform."""
        random, size = np.random.default_rng(seed), settings.hidden
        shapes = {
            "lstm": (2 * size, 4 * size),
            "start": (1, size),
            "embedding": (operations, size),
            "softmax": (size, operations),
            "anchor": (size, size),
            "query": (size, size),
            "score": (size, 1),
        }
        weights = {name: random.uniform(-_WIDTH, _WIDTH, shape) for name, shape in shapes.items()}
        return cls(settings, layers, operations, weights, {n: (np.zeros_like(w),) * 2 for n, w in weights.items()})

    @property
    def nbytes(self) -> int:
        """Memory of its weights and moments."""
        return 3 * sum(weight.nbytes for weight in self.weights.values())

    def sample(self, random: np.random.Generator) -> Architecture:
        """Draws an architecture."""
        return _Pass(self, random).architectures()[0]

    def train(self, architectures: Sequence[Architecture], rewards: Sequence[float]) -> "Controller":
        """Gives the policy after `train_steps` steps towards what gave more reward than the baseline."""
        trained = self
        baseline = float(np.mean(rewards)) if self.baseline is None else self.baseline
        for reward in rewards:
            baseline -= (1 - self.settings.baseline_decay) * (baseline - reward)
        advantages = np.array(rewards) - baseline
        for _ in range(self.settings.train_steps):
            _, gradients = trained.loss(architectures, advantages)
            trained = trained._stepped(gradients, baseline)
        return trained

    def loss(self, architectures: Sequence[Architecture], advantages: Array) -> tuple[float, dict[str, Array]]:
        """Gives what training makes smaller, the mean over architectures, and its gradients.

        Args:
            architectures: Batch of B.
            advantages: (B,): rewards less the baseline.
        """
        return _Pass(self, architectures).loss(advantages)

    def _stepped(self, gradients: Mapping[str, Array], baseline: float) -> "Controller":
        steps, weights, moments = self.steps + 1, {}, {}
        for name, weight in self.weights.items():
            first = _BETAS[0] * self.moments[name][0] + (1 - _BETAS[0]) * gradients[name]
            second = _BETAS[1] * self.moments[name][1] + (1 - _BETAS[1]) * gradients[name] ** 2
            mean, variance = first / (1 - _BETAS[0] ** steps), second / (1 - _BETAS[1] ** steps)
            weights[name] = weight - self.settings.learning_rate * mean / (np.sqrt(variance) + _EPSILON)
            moments[name] = (first, second)
        return Controller(self.settings, self.layers, self.operations, weights, moments, steps, baseline)


@dataclass(slots=True)
class _Cell:
    """One step of the LSTM, as its gradient needs it: all (B, hidden) but `joined`, (B, 2 * hidden)."""

    joined: Array
    before: Array
    i: Array
    f: Array
    o: Array
    g: Array
    after: Array


class _Pass:
    """One run of the controller over a batch, and its way back.

    Args:
        controller: The policy.
        source: The batch of architectures; or a generator, to draw one.
    """

    def __init__(self, controller: Controller, source: Sequence[Architecture] | np.random.Generator) -> None:
        self._controller = controller
        self._settings = controller.settings
        self._weights = controller.weights
        self._random = source if isinstance(source, np.random.Generator) else None
        self._given = None if isinstance(source, np.random.Generator) else source
        self._batch = 1 if self._given is None else len(self._given)
        self._cells: list[_Cell] = []
        self._operations: list[NDArray[np.int64]] = []
        self._skips: list[Array] = []
        self._probabilities: list[tuple[Array, Array]] = []
        self._scores: list[tuple[Array, Array, Array]] = []
        self._states: list[Array] = []
        self._anchors: list[Array] = []
        self._forward()

    def architectures(self) -> list[Architecture]:
        """Gives the batch."""
        return [
            tuple(
                (int(self._operations[layer][row]), *(int(skip) for skip in self._skips[layer][row]))
                for layer in range(self._controller.layers)
            )
            for row in range(self._batch)
        ]

    def _forward(self) -> None:
        weights = self._weights
        h = c = np.zeros((self._batch, self._settings.hidden))
        start = np.repeat(weights["start"], self._batch, axis=0)
        x = start
        for layer in range(self._controller.layers):
            h, c = self._step(x, h, c)
            logits, slope = self._squashed(h @ weights["softmax"])
            exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
            probability = exponents / exponents.sum(axis=1, keepdims=True)
            self._probabilities.append((probability, slope))
            operation = self._operation(layer, probability)
            self._operations.append(operation)
            h, c = self._step(weights["embedding"][operation], h, c)
            skips = np.zeros((self._batch, 0))
            x = start
            if layer:
                inner = np.tanh((h @ weights["query"])[:, np.newaxis] + np.stack(self._anchors, axis=1))
                scores, slope = self._squashed((inner @ weights["score"])[..., 0])
                chance = 1 / (1 + np.exp(-2 * scores))  # of two logits, -score and score
                self._scores.append((inner, slope, chance))
                skips = self._skipped(layer, chance)
                x = np.einsum("bl,blh->bh", skips, np.stack(self._states, axis=1))
                x /= 1 + skips.sum(axis=1, keepdims=True)
            self._skips.append(skips)
            self._states.append(h)
            self._anchors.append(h @ weights["anchor"])

    def _operation(self, layer: int, probability: Array) -> NDArray[np.int64]:
        if self._given is not None:
            return np.array([architecture[layer][0] for architecture in self._given], dtype=np.int64)
        assert self._random is not None
        return np.array([self._random.choice(len(row), p=row) for row in probability], dtype=np.int64)

    def _skipped(self, layer: int, chance: Array) -> Array:
        if self._given is not None:
            return np.array([architecture[layer][1:] for architecture in self._given], dtype=float)
        assert self._random is not None
        return (self._random.random(chance.shape) < chance).astype(float)

    def _step(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        joined = np.concatenate([x, h], axis=1)
        i, f, o, g = np.split(joined @ self._weights["lstm"], 4, axis=1)
        i, f, o, g = _sigmoid(i), _sigmoid(f), _sigmoid(o), np.tanh(g)
        after = i * g + f * c
        self._cells.append(_Cell(joined, c, i, f, o, g, after))
        return o * np.tanh(after), after

    def _squashed(self, logits: Array) -> tuple[Array, Array]:
        """Gives logits as temperature and tanh_const make them, and their derivative."""
        scale = 1.0 if self._settings.temperature is None else 1 / self._settings.temperature
        if self._settings.tanh_const is None:
            return logits * scale, np.full_like(logits, scale)
        bent = np.tanh(logits * scale)
        return self._settings.tanh_const * bent, self._settings.tanh_const * scale * (1 - bent**2)

    def loss(self, advantages: Array) -> tuple[float, dict[str, Array]]:
        """See Controller."""
        weights, layers = self._weights, self._controller.layers
        gradients = {name: np.zeros_like(weight) for name, weight in weights.items()}
        states = [np.zeros_like(state) for state in self._states]
        anchors = [np.zeros_like(anchor) for anchor in self._anchors]
        dh = dc = dx = np.zeros((self._batch, self._settings.hidden))
        total = 0.0
        for layer in range(layers - 1, -1, -1):
            # What came after this layer was given x; then the layer's own choices, the last first.
            anchors_of = anchors[layer]
            gradients["anchor"] += self._states[layer].T @ anchors_of
            dh = dh + states[layer] + anchors_of @ weights["anchor"].T
            if layer:
                skips = self._skips[layer]
                share = dx / (1 + skips.sum(axis=1, keepdims=True))
                for before in range(layer):
                    states[before] += skips[:, before, np.newaxis] * share
                inner, slope, chance = self._scores[layer - 1]
                value, dscore = self._skip_loss(skips, chance, advantages)
                total += value
                dscore = dscore * slope
                gradients["score"] += np.einsum("blh,bl->h", inner, dscore)[:, np.newaxis]
                dinner = dscore[..., np.newaxis] * weights["score"][:, 0] * (1 - inner**2)
                dquery = dinner.sum(axis=1)
                gradients["query"] += self._states[layer].T @ dquery
                dh = dh + dquery @ weights["query"].T
                for before in range(layer):
                    anchors[before] += dinner[:, before]
            else:
                gradients["start"] += dx.sum(axis=0, keepdims=True)
            dx, dh, dc = self._step_back(2 * layer + 1, dh, dc, gradients)
            np.add.at(gradients["embedding"], self._operations[layer], dx)
            value, dlogits = self._operation_loss(layer, advantages)
            total += value
            dlogits = dlogits * self._probabilities[layer][1]
            hidden = self._hidden(2 * layer)
            gradients["softmax"] += hidden.T @ dlogits
            dh = dh + dlogits @ weights["softmax"].T
            dx, dh, dc = self._step_back(2 * layer, dh, dc, gradients)
        gradients["start"] += dx.sum(axis=0, keepdims=True)
        return total / self._batch, {name: gradient / self._batch for name, gradient in gradients.items()}

    def _operation_loss(self, layer: int, advantages: Array) -> tuple[float, Array]:
        probability = self._probabilities[layer][0]
        rows, chosen = np.arange(self._batch), self._operations[layer]
        logs = np.log(probability)
        value = -advantages * logs[rows, chosen]
        gradient = probability.copy()
        gradient[rows, chosen] -= 1
        gradient *= advantages[:, np.newaxis]
        weight = self._settings.entropy_weight or 0.0
        entropy = -(probability * logs).sum(axis=1, keepdims=True)
        gradient += weight * probability * (logs + entropy)
        return float((value - weight * entropy[:, 0]).sum()), gradient

    def _skip_loss(self, skips: Array, chance: Array, advantages: Array) -> tuple[float, Array]:
        yes, no = np.log(chance), np.log1p(-chance)
        value = -advantages[:, np.newaxis] * (skips * yes + (1 - skips) * no)
        gradient = advantages[:, np.newaxis] * 2 * (chance - skips)
        bent = 2 * chance * (1 - chance)  # of the chance by the score
        weight = self._settings.entropy_weight or 0.0
        value -= weight * -(chance * yes + (1 - chance) * no)
        gradient += weight * (yes - no) * bent
        # The distance of the chances from the target, in the mean over the layers that can be skipped to.
        weight = (self._settings.skip_weight or 0.0) / max(1, self._controller.layers - 1)
        target = min(max(self._settings.skip_target, 1e-6), 1 - 1e-6)
        value += weight * (chance * (yes - np.log(target)) + (1 - chance) * (no - np.log(1 - target)))
        gradient += weight * (yes - no - np.log(target) + np.log(1 - target)) * bent
        return float(value.sum()), gradient

    def _hidden(self, number: int) -> Array:
        cell = self._cells[number]
        hidden: Array = cell.o * np.tanh(cell.after)
        return hidden

    def _step_back(self, number: int, dh: Array, dc: Array, gradients: dict[str, Array]) -> tuple[Array, Array, Array]:
        cell = self._cells[number]
        bent = np.tanh(cell.after)
        dc = dc + dh * cell.o * (1 - bent**2)
        gates = np.concatenate(
            [
                dc * cell.g * cell.i * (1 - cell.i),
                dc * cell.before * cell.f * (1 - cell.f),
                dh * bent * cell.o * (1 - cell.o),
                dc * cell.i * (1 - cell.g**2),
            ],
            axis=1,
        )
        gradients["lstm"] += cell.joined.T @ gates
        dx, before = np.split(gates @ self._weights["lstm"].T, 2, axis=1)
        return dx, before, dc * cell.f


def _sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))
