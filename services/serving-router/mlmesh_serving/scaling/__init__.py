"""How many replicas a revision has: Knative's autoscaler, what it measures, and what waits for a replica."""
