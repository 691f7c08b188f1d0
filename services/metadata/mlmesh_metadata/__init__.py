"""ML Metadata's store and the lineage questions."""
