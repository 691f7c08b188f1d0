"""InferenceGraphs (serving.kserve.io/v1alpha1): several models behind one request."""
