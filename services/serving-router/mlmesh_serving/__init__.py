"""Open Inference Protocol: preprocessor, predictor, postprocessor."""
