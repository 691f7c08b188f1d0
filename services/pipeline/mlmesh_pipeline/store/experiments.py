"""Experiments in the database."""

from typing import Any

from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, NotFound
from sqlalchemy import Connection, Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from mlmesh_pipeline.listing import ListQuery, Page
from mlmesh_pipeline.resources import Experiment, StorageState, now
from mlmesh_pipeline.store.listing import list_page
from mlmesh_pipeline.tables import experiments, recurring_runs, runs

_FIELDS = {
    "id": experiments.c.experiment_id,
    "experiment_id": experiments.c.experiment_id,
    "name": experiments.c.display_name,
    "display_name": experiments.c.display_name,
    "description": experiments.c.description,
    "created_at": experiments.c.created_at,
    "last_run_created_at": experiments.c.last_run_created_at,
    "storage_state": experiments.c.storage_state,
    "namespace": experiments.c.namespace,
}


class ExperimentStore:
    """Experiments.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, experiment: Experiment) -> Experiment:
        """Adds an experiment.

        Raises:
            AlreadyExists: The namespace has one of this name.
        """
        try:
            run_transaction(self._engine, lambda connection: _insert(connection, experiment))
        except IntegrityError as error:
            raise AlreadyExists("experiment", experiment.display_name) from error
        return experiment

    def get(self, experiment_id: str) -> Experiment:
        """Gives an experiment.

        Raises:
            NotFound: There is none of this id.
        """
        with read(self._engine) as connection:
            row = connection.execute(select(experiments).where(experiments.c.experiment_id == experiment_id)).first()
        if row is None:
            raise NotFound("experiment", experiment_id)
        return _experiment(row)

    def find(self, namespace: str, display_name: str) -> Experiment | None:
        """Gives the experiment of this name, if there is one."""
        with read(self._engine) as connection:
            row = connection.execute(
                select(experiments).where(
                    experiments.c.namespace == namespace, experiments.c.display_name == display_name
                )
            ).first()
        return _experiment(row) if row else None

    def page(self, namespace: str, query: ListQuery) -> Page[Experiment]:
        """Lists the experiments of a namespace."""
        with read(self._engine) as connection:
            return list_page(
                connection,
                experiments,
                _FIELDS,
                key=experiments.c.experiment_id,
                where={experiments.c.namespace: namespace},
                query=query,
                make=_experiment,
            )

    def archive(self, experiment_id: str) -> None:
        """Archives an experiment and its runs; its recurring runs fire no more."""

        def write(connection: Connection) -> None:
            _set_storage(connection, experiment_id, StorageState.ARCHIVED)
            connection.execute(
                update(runs).where(runs.c.experiment_id == experiment_id).values(storage_state=StorageState.ARCHIVED)
            )
            of_experiment = update(recurring_runs).where(
                recurring_runs.c.experiment_id == experiment_id, recurring_runs.c.enabled == 1
            )
            connection.execute(of_experiment.values(enabled=0, updated_at=now()))

        run_transaction(self._engine, write)

    def unarchive(self, experiment_id: str) -> None:
        """Restores an experiment; its runs stay archived."""
        run_transaction(
            self._engine, lambda connection: _set_storage(connection, experiment_id, StorageState.AVAILABLE)
        )

    def delete(self, experiment_id: str) -> None:
        """Deletes an experiment; its runs stay."""
        run_transaction(
            self._engine,
            lambda connection: connection.execute(
                delete(experiments).where(experiments.c.experiment_id == experiment_id)
            ),
        )


def _insert(connection: Connection, experiment: Experiment) -> None:
    connection.execute(
        insert(experiments).values(
            experiment_id=experiment.experiment_id,
            namespace=experiment.namespace,
            display_name=experiment.display_name,
            description=experiment.description,
            created_at=experiment.created_at,
            storage_state=experiment.storage_state.value,
            last_run_created_at=experiment.last_run_created_at,
        )
    )


def _set_storage(connection: Connection, experiment_id: str, state: StorageState) -> None:
    connection.execute(
        update(experiments).where(experiments.c.experiment_id == experiment_id).values(storage_state=state.value)
    )


def _experiment(row: Row[Any]) -> Experiment:
    return Experiment(
        row.experiment_id,
        row.namespace,
        row.display_name,
        row.description,
        row.created_at,
        StorageState(row.storage_state),
        row.last_run_created_at,
    )
