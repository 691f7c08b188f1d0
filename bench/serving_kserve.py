"""Serves scikit-learn models with kserve: what its own image for scikit-learn does, which is no package of PyPI.

`python serving_kserve.py [options of kserve's ModelServer] NAME=FILE ...`, in kserve's own environment.
"""

import argparse
from typing import Any

import joblib
from kserve import InferRequest, InferResponse, Model, ModelServer, model_server
from kserve.utils.utils import get_predict_input, get_predict_response


class SklearnModel(Model):
    """A model of a joblib file."""

    def __init__(self, name: str, file: str) -> None:
        super().__init__(name)
        self._estimator = joblib.load(file)
        self.ready = True

    def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: Any = None,
    ) -> dict[str, Any] | InferResponse:
        return get_predict_response(payload, self._estimator.predict(get_predict_input(payload)), self.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    ModelServer().start([SklearnModel(*named.split("=", 1)) for named in parser.parse_args().models])
