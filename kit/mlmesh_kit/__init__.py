"""What every mlmesh service shares."""
