"""Between gRPC and the domain."""
