"""Renderers: from the description of the mesh to what Envoy, Istio and Knative read."""
