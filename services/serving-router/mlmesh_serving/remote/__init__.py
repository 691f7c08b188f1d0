"""Servers elsewhere that speak the Open Inference Protocol or OpenAI's, as backends of ours."""
