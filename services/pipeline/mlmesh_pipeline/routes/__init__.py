"""The HTTP port: what gRPC transcoding cannot say."""
