"""Puts load on a model and measures how it answers."""
