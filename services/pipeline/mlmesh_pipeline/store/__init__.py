"""The database: the only place with SQL."""

from mlmesh_pipeline.store.cache import CacheStore
from mlmesh_pipeline.store.executions import ExecutionStore
from mlmesh_pipeline.store.experiments import ExperimentStore
from mlmesh_pipeline.store.outbox import OutboxStore
from mlmesh_pipeline.store.pipelines import PipelineStore
from mlmesh_pipeline.store.recurring_runs import RecurringRunStore
from mlmesh_pipeline.store.runs import RunStore
from mlmesh_pipeline.store.tasks import TaskStore

__all__ = [
    "CacheStore",
    "ExecutionStore",
    "ExperimentStore",
    "OutboxStore",
    "PipelineStore",
    "RecurringRunStore",
    "RunStore",
    "TaskStore",
]
