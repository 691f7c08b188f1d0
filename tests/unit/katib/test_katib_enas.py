"""ENAS: the controller's gradient and what it learns; forms of architectures; what a replica answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from mlmesh_katib.algorithms import ALGORITHMS, Observed, Question
from mlmesh_katib.algorithms import enas as module
from mlmesh_katib.algorithms.enas_controller import Controller, ControllerSettings
from mlmesh_katib.space import Space
from mlmesh_kit.errors import InvalidArgument

ENAS = ALGORITHMS["enas"]
NAS = {
    "graphConfig": {"numLayers": 3, "inputSizes": [32, 32, 3], "outputSizes": [10]},
    "operations": [
        {
            "operationType": "convolution",
            "parameters": [
                {"name": "filter_size", "parameterType": "categorical", "feasibleSpace": {"list": ["3", "5"]}},
                {"name": "stride", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "2", "step": "1"}},
            ],
        },
        {
            "operationType": "reduction",
            "parameters": [
                {
                    "name": "rate",
                    "parameterType": "double",
                    "feasibleSpace": {"min": "0.1", "max": "0.3", "step": "0.1"},
                }
            ],
        },
    ],
}


def question(trials=(), made: int | None = None, nas=NAS, parallel: int = 2, **settings: str) -> Question:
    made = len(trials) if made is None else made
    return Question(Space(()), settings, trials, made=made, parallel=parallel, nas=nas, experiment="search")


def trial(architecture: str, loss: float | None) -> Observed:
    return Observed((), loss, running=loss is None, assignments={"architecture": architecture})


@pytest.mark.parametrize("bounds", [{}, {"temperature": None}, {"tanh_const": None}])
def test_the_gradient_is_that_of_the_loss(bounds):
    settings = ControllerSettings(hidden=5, entropy_weight=0.3, skip_weight=0.7, **bounds)
    new = Controller.new(settings, 4, 3, [1])
    random = np.random.default_rng(0)
    controller = replace(new, weights={n: random.normal(size=w.shape) * 0.7 for n, w in new.weights.items()})
    batch = [controller.sample(random) for _ in range(3)]
    advantages = np.array([0.5, -1.0, 2.0])
    _, gradients = controller.loss(batch, advantages)
    for name, weight in controller.weights.items():
        for place in random.choice(weight.size, 5, replace=False) if weight.size > 5 else range(weight.size):
            losses = []
            for step in (1e-5, -1e-5):
                moved = weight.copy()
                moved.flat[place] += step
                there = replace(controller, weights={**controller.weights, name: moved})
                losses.append(there.loss(batch, advantages)[0])
            slope = (losses[0] - losses[1]) / 2e-5
            assert gradients[name].flat[place] == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def test_it_learns_which_operation_gives_more():
    settings = {"controller_learning_rate": "0.01", "controller_train_steps": "10", "random_state": "3"}
    settings["controller_baseline_decay"] = "0.9"
    trials: list[Observed] = []
    shares = []
    for _ in range(20):
        answer = ENAS.answer(question(trials, parallel=4, **settings), 4)
        architectures = [json.loads(s.assignments["architecture"]) for s in answer.suggestions]
        found = [np.mean([layer[0] == 1 for layer in architecture]) for architecture in architectures]
        shares.append(np.mean(found))
        trials += [trial(json.dumps(a), -float(share)) for a, share in zip(architectures, found, strict=True)]
    assert np.mean(shares[:3]) < 0.35 < 0.6 < np.mean(shares[-3:])


def test_architectures_are_written_as_katibs_training_image_reads_them():
    suggestion = ENAS.answer(question(random_state="1"), 1).suggestions[0]
    architecture = json.loads(suggestion.assignments["architecture"])
    assert [len(layer) for layer in architecture] == [1, 2, 3]
    text = suggestion.assignments["nn_config"]
    assert '"' not in text
    config = json.loads(text.replace("'", '"'))
    assert (config["num_layers"], config["input_sizes"], config["output_sizes"]) == (3, [32, 32, 3], [10])
    every = [
        *({"filter_size": size, "stride": stride} for size in ("3", "5") for stride in (1, 2)),
        *({"rate": rate} for rate in (0.1, 0.2, 0.3)),
    ]
    assert set(config["embedding"]) == {str(layer[0]) for layer in architecture}
    for number, operation in config["embedding"].items():
        assert operation["opt_id"] == int(number)
        assert operation["opt_params"] == every[int(number)]
        assert operation["opt_type"] == ("convolution" if int(number) < 4 else "reduction")


def test_a_replica_that_has_not_seen_the_trials_answers_the_same(monkeypatch):
    trials = [trial("[[3], [0, 1], [0, 0, 1]]", -0.8), trial("[[1], [0, 1], [2, 1, 1]]", -0.9)]
    trials += [trial("[[0], [1, 0], [2, 1, 0]]", -0.1), trial("[[2], [1, 0], [2, 1, 0]]", None)]
    asked = question(trials, random_state="5", controller_learning_rate="0.05")
    ENAS.answer(question(trials[:2], random_state="5", controller_learning_rate="0.05"), 1)
    first = ENAS.answer(asked, 3)
    monkeypatch.setattr(module, "_MEMORY", module._Memory())
    assert ENAS.answer(asked, 3) == first
    untrained = ENAS.answer(replace(asked, trials=()), 3)
    assert untrained != first


def test_no_architecture_comes_twice_and_the_end_is_told():
    small = {
        "graphConfig": {"numLayers": 2, "inputSizes": [1], "outputSizes": [1]},
        "operations": [
            {
                "operationType": "convolution",
                "parameters": [{"name": "size", "parameterType": "discrete", "feasibleSpace": {"list": ["1", "2"]}}],
            }
        ],
    }
    answer = ENAS.answer(question(nas=small), 20)
    assert len({s.assignments["architecture"] for s in answer.suggestions}) == len(answer.suggestions) == 8
    assert not answer.wait


def test_trials_of_another_search_are_left_out():
    strange = ["", "[[9], [0, 1], [0, 0, 1]]", "[[1]]", "[[1], [1, 2], [0, 0, 0]]", "{}", "[" * 5000]
    assert len(ENAS.answer(question([trial(text, -1.0) for text in strange]), 2).suggestions) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"controller_hidden_size": "0"}, "controller_hidden_size: 0 with int type must be in range [1, 512]"),
        ({"controller_train_steps": "1.5"}, "controller_train_steps must be int type"),
        ({"controller_temperature": "0"}, "controller_temperature: 0 with float type must be in range (0, inf]"),
        ({"controller_baseline_decay": "1.1"}, "must be in range (0, 1]"),
        ({"controller_learning_rate": "None"}, "controller_learning_rate must be float type"),
        ({"controller_layers": "3"}, "Unknown Algorithm Setting name: controller_layers"),
    ],
)
def test_bad_settings_are_told(settings, message):
    with pytest.raises(InvalidArgument) as caught:
        ENAS.validate(question(**settings))
    assert message in caught.value.message


def test_what_may_be_off_is_off():
    names = ("temperature", "tanh_const", "entropy_weight", "skip_weight")
    off = {f"controller_{name}": "None" for name in names}
    ENAS.validate(question(**off))
    asked = question([trial("[[3], [0, 1], [0, 0, 1]]", -0.8)], **off)
    assert len(ENAS.answer(asked, 1).suggestions) == 1
