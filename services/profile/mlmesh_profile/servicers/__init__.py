"""From proto to the domain and back, a module for each gRPC service."""
