"""gRPC: messages to domain and back, nothing else."""
