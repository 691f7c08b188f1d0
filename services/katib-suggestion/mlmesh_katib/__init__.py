"""Katib: suggestions, experiments and trials."""
