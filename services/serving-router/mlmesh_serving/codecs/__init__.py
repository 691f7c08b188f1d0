"""Between tensors and the wire: raw bytes, gRPC's typed contents, JSON."""
