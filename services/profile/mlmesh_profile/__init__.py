"""Profiles, contributors and the access check."""
