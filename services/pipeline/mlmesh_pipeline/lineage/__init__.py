"""Lineage: what ran, on what, and what it gave, told to the metadata service."""
