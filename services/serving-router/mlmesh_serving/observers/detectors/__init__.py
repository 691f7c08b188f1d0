"""Detectors of drift and of outliers: statistics on the instances that a model was asked about."""
