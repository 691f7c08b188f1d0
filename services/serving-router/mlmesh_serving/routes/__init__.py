"""The data plane's REST doors."""

from mlmesh_serving.routes.graphs import graph_routes
from mlmesh_serving.routes.openai import openai_routes
from mlmesh_serving.routes.v1 import v1_raw_routes, v1_routes
from mlmesh_serving.routes.v2 import v2_raw_routes, v2_routes

__all__ = ["graph_routes", "openai_routes", "v1_raw_routes", "v1_routes", "v2_raw_routes", "v2_routes"]
