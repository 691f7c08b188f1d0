"""Open Inference Protocol: preprocessor, predictor, postprocessor."""

__version__ = "0.1.0"
