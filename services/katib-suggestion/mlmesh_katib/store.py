"""Experiments, trials and observation logs in the database."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from mlmesh_kit.database import read, run_transaction
from mlmesh_kit.errors import AlreadyExists, NotFound

from mlmesh_katib.collectors.base import MetricLog
from mlmesh_katib.experiment import Condition, EarlierTrial, Experiment, Trial, TrialState, conditions_after, now_ms
from mlmesh_katib.objective import MetricSummary
from mlmesh_katib.tables import EARLIER_TRIALS, EXPERIMENTS, OBSERVATION_LOGS, OUTBOX, TRIALS

_THE_EXPERIMENT = 0  # trial_number of an outbox row that is about the experiment itself


class KatibStore:
    """Reads and writes.

    Args:
        engine: Of the service's database.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    # Experiments

    def create_experiment(
        self, namespace: str, name: str, manifest: Any, earlier: Sequence[EarlierTrial] = ()
    ) -> Experiment:
        """Adds an experiment, with the trials of others that it starts with.

        Raises:
            AlreadyExists: There is one of this name.
        """
        conditions = conditions_after((), "Created", "ExperimentCreated", "Experiment is created")

        def write(connection: sa.Connection) -> Experiment:
            created = now_ms()
            result = connection.execute(
                sa.insert(EXPERIMENTS).values(
                    namespace=namespace,
                    name=name,
                    manifest=json.dumps(manifest),
                    conditions=_dump_conditions(conditions),
                    active=True,
                    created_ms=created,
                )
            )
            key = result.inserted_primary_key
            assert key is not None
            if earlier:
                rows = [
                    {"number": number, "trial": json.dumps(asdict(trial))} for number, trial in enumerate(earlier, 1)
                ]
                connection.execute(sa.insert(EARLIER_TRIALS), [{"experiment_id": key[0], **row} for row in rows])
            _announce(connection, key[0], _THE_EXPERIMENT)
            return Experiment(key[0], namespace, name, manifest, conditions, True, created, None)

        try:
            return run_transaction(self._engine, write)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists("experiment", name) from error

    def get_experiment(self, namespace: str, name: str) -> Experiment:
        """Reads an experiment.

        Raises:
            NotFound: There is none of this name.
        """
        query = sa.select(EXPERIMENTS).where(EXPERIMENTS.c.namespace == namespace, EXPERIMENTS.c.name == name)
        with read(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound("experiment", name)
        return _experiment(row)

    def get_experiment_by_id(self, experiment_id: int) -> Experiment | None:
        """Reads an experiment; None if it has been deleted."""
        with read(self._engine) as connection:
            row = connection.execute(sa.select(EXPERIMENTS).where(EXPERIMENTS.c.id == experiment_id)).first()
        return None if row is None else _experiment(row)

    def earlier_trials(self, experiment_id: int) -> list[EarlierTrial]:
        """Reads the trials of others that an experiment started with, in their order."""
        table = EARLIER_TRIALS
        query = sa.select(table.c.trial).where(table.c.experiment_id == experiment_id).order_by(table.c.number)
        with read(self._engine) as connection:
            return [EarlierTrial(**json.loads(text)) for text in connection.scalars(query)]

    def list_experiments(self, namespace: str, before_id: int | None, limit: int) -> list[Experiment]:
        """Reads experiments, newest first, from below an id on."""
        query = sa.select(EXPERIMENTS).where(EXPERIMENTS.c.namespace == namespace)
        if before_id is not None:
            query = query.where(EXPERIMENTS.c.id < before_id)
        with read(self._engine) as connection:
            return [
                _experiment(row) for row in connection.execute(query.order_by(EXPERIMENTS.c.id.desc()).limit(limit))
            ]

    def active_experiments(self) -> list[int]:
        """Lists the ids of experiments that have work left, oldest first."""
        with read(self._engine) as connection:
            query = sa.select(EXPERIMENTS.c.id).where(EXPERIMENTS.c.active).order_by(EXPERIMENTS.c.id)
            return list(connection.scalars(query))

    def set_conditions(self, experiment_id: int, conditions: Sequence[Condition], *, over: bool) -> None:
        """Writes an experiment's conditions, and that it is over."""
        values: dict[str, Any] = {"conditions": _dump_conditions(conditions)}
        if over:
            values.update(active=False, completed_ms=now_ms())

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.update(EXPERIMENTS).where(EXPERIMENTS.c.id == experiment_id).values(**values))
            _announce(connection, experiment_id, _THE_EXPERIMENT)

        run_transaction(self._engine, write)

    def set_best_trial(self, experiment_id: int, number: int) -> None:
        """Notes which trial is an experiment's best."""
        query = sa.update(EXPERIMENTS).where(EXPERIMENTS.c.id == experiment_id).values(best_trial=number)
        run_transaction(self._engine, lambda connection: connection.execute(query))

    def best_trials(self, experiment_ids: Sequence[int]) -> dict[int, Trial]:
        """Reads the best trial of each experiment that has one: experiment id → trial."""
        is_best = sa.and_(TRIALS.c.experiment_id == EXPERIMENTS.c.id, TRIALS.c.number == EXPERIMENTS.c.best_trial)
        query = sa.select(TRIALS).join(EXPERIMENTS, is_best).where(EXPERIMENTS.c.id.in_(experiment_ids))
        with read(self._engine) as connection:
            return {row.experiment_id: _trial(row) for row in connection.execute(query)}

    def count_trials(self, experiment_ids: Sequence[int]) -> dict[int, dict[TrialState, int]]:
        """Counts trials: experiment id → state → how many; without states and experiments that have none."""
        columns = (TRIALS.c.experiment_id, TRIALS.c.state)
        query = sa.select(*columns, sa.func.count().label("trials")).group_by(*columns)
        found: dict[int, dict[TrialState, int]] = {}
        with read(self._engine) as connection:
            for row in connection.execute(query.where(TRIALS.c.experiment_id.in_(experiment_ids))):
                found.setdefault(row.experiment_id, {})[TrialState(row.state)] = row.trials
        return found

    def change_experiment(
        self, namespace: str, name: str, change: Callable[[Experiment, int], Experiment]
    ) -> Experiment:
        """Changes an experiment in one transaction.

        Args:
            namespace, name: Of the experiment.
            change: (the experiment, how many trials it has made) → what it is to be.

        Raises:
            NotFound: There is none of this name.
        """
        where = sa.and_(EXPERIMENTS.c.namespace == namespace, EXPERIMENTS.c.name == name)

        def write(connection: sa.Connection) -> Experiment:
            row = connection.execute(sa.select(EXPERIMENTS).where(where).with_for_update()).first()
            if row is None:
                raise NotFound("experiment", name)
            made = connection.scalar(
                sa.select(sa.func.count()).select_from(TRIALS).where(TRIALS.c.experiment_id == row.id)
            )
            changed = change(_experiment(row), made or 0)
            connection.execute(
                sa.update(EXPERIMENTS)
                .where(where)
                .values(
                    manifest=json.dumps(dict(changed.manifest)),
                    conditions=_dump_conditions(changed.conditions),
                    active=changed.active,
                    completed_ms=changed.completed_ms,
                    paused=changed.paused,
                )
            )
            _announce(connection, row.id, _THE_EXPERIMENT)
            return changed

        return run_transaction(self._engine, write)

    def delete_experiment(self, namespace: str, name: str) -> Experiment:
        """Removes an experiment with its trials and their logs; gives what it was.

        Raises:
            NotFound: There is none of this name.
        """
        experiment = self.get_experiment(namespace, name)

        def write(connection: sa.Connection) -> None:
            names = sa.select(TRIALS.c.name).where(TRIALS.c.experiment_id == experiment.id)
            logs = sa.and_(OBSERVATION_LOGS.c.namespace == namespace, OBSERVATION_LOGS.c.trial_name.in_(names))
            connection.execute(sa.delete(OBSERVATION_LOGS).where(logs))
            connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.experiment_id == experiment.id))
            for table in (TRIALS, EARLIER_TRIALS):
                connection.execute(sa.delete(table).where(table.c.experiment_id == experiment.id))
            if not connection.execute(sa.delete(EXPERIMENTS).where(EXPERIMENTS.c.id == experiment.id)).rowcount:
                raise NotFound("experiment", name)

        run_transaction(self._engine, write)
        return experiment

    # Trials

    def add_trials(self, experiment_id: int, trials: Sequence[Trial], settings: Mapping[str, str]) -> None:
        """Adds trials: from now on they will be run; and the algorithm's settings after it has suggested them."""

        def write(connection: sa.Connection) -> None:
            where = EXPERIMENTS.c.id == experiment_id
            connection.execute(sa.update(EXPERIMENTS).where(where).values(state=json.dumps(dict(settings))))
            if trials:
                connection.execute(
                    sa.insert(TRIALS), [{"experiment_id": experiment_id, **_trial_values(trial)} for trial in trials]
                )

        run_transaction(self._engine, write)

    def save_trial(self, experiment_id: int, trial: Trial) -> None:
        """Writes a trial."""

        def write(connection: sa.Connection) -> None:
            where = sa.and_(TRIALS.c.experiment_id == experiment_id, TRIALS.c.number == trial.number)
            if not connection.execute(sa.update(TRIALS).where(where).values(**_trial_values(trial))).rowcount:
                return  # the experiment has been deleted
            if trial.state is not TrialState.CREATED:
                _announce(connection, experiment_id, trial.number)

        run_transaction(self._engine, write)

    def trials(self, experiment_id: int, after: int = 0, limit: int | None = None) -> list[Trial]:
        """Reads trials in their order, from after a number on."""
        query = sa.select(TRIALS).where(TRIALS.c.experiment_id == experiment_id, TRIALS.c.number > after)
        with read(self._engine) as connection:
            return [_trial(row) for row in connection.execute(query.order_by(TRIALS.c.number).limit(limit))]

    def get_trial(self, experiment: Experiment, name: str) -> Trial:
        """Reads a trial.

        Raises:
            NotFound: The experiment has none of this name.
        """
        query = sa.select(TRIALS).where(TRIALS.c.experiment_id == experiment.id, TRIALS.c.name == name)
        with read(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            raise NotFound("trial", name)
        return _trial(row)

    def trials_named(self, name: str) -> list[tuple[str, bool]]:
        """Finds the trials of a name in all namespaces: (namespace, whether it has ended), in their order."""
        query = (
            sa.select(EXPERIMENTS.c.namespace, TRIALS.c.state)
            .join(EXPERIMENTS, EXPERIMENTS.c.id == TRIALS.c.experiment_id)
            .where(TRIALS.c.name == name)
            .order_by(EXPERIMENTS.c.namespace)
        )
        with read(self._engine) as connection:
            return [(row.namespace, TrialState(row.state).is_final) for row in connection.execute(query)]

    # Observation logs (Katib's DBManager)

    def report_logs(self, namespace: str, trial_name: str, logs: Sequence[MetricLog]) -> None:
        """Adds reports of a trial; the namespace is empty where it is of no experiment that is known here."""
        if not logs:
            return
        rows = [
            {
                "namespace": namespace,
                "trial_name": trial_name,
                "time": log.time,
                "metric_name": log.name,
                "value": log.value,
            }
            for log in logs
        ]
        run_transaction(self._engine, lambda connection: connection.execute(sa.insert(OBSERVATION_LOGS), rows))

    def get_logs(
        self, namespace: str, trial_name: str, metric: str, start: str, end: str, limit: int
    ) -> list[MetricLog]:
        """Reads the reports of a trial by time.

        Args:
            namespace, trial_name: Of the trial.
            metric: Of one metric; empty: of all.
            start, end: RFC 3339 in UTC; empty: no bound.
            limit: Most reports.
        """
        logs = OBSERVATION_LOGS
        query = sa.select(logs).where(_of(namespace, trial_name)).order_by(logs.c.time, logs.c.id).limit(limit)
        if metric:
            query = query.where(logs.c.metric_name == metric)
        if start:
            query = query.where(logs.c.time >= start)
        if end:
            query = query.where(logs.c.time <= end)
        with read(self._engine) as connection:
            return [MetricLog(row.time, row.metric_name, row.value) for row in connection.execute(query)]

    def reports(
        self, namespace: str, trial_name: str, metric: str = "", after: int = 0, limit: int | None = None
    ) -> list[tuple[int, MetricLog]]:
        """Reads the reports of a trial in the order they came, from after a position on: (position, report)."""
        logs = OBSERVATION_LOGS
        query = sa.select(logs).where(_of(namespace, trial_name), logs.c.id > after).order_by(logs.c.id)
        if metric:
            query = query.where(logs.c.metric_name == metric)
        with read(self._engine) as connection:
            rows = connection.execute(query.limit(limit))
            return [(row.id, MetricLog(row.time, row.metric_name, row.value)) for row in rows]

    def delete_logs(self, namespace: str, trial_name: str) -> None:
        """Removes the reports of a trial."""
        query = sa.delete(OBSERVATION_LOGS).where(_of(namespace, trial_name))
        run_transaction(self._engine, lambda connection: connection.execute(query))

    # The outbox: what the metadata service has to be told

    def outbox(self, limit: int) -> list[tuple[int, int, int]]:
        """Reads the oldest notices: (id, experiment id, trial number or 0)."""
        with read(self._engine) as connection:
            query = sa.select(OUTBOX.c.id, OUTBOX.c.experiment_id, OUTBOX.c.trial_number)
            return [tuple(row) for row in connection.execute(query.order_by(OUTBOX.c.id).limit(limit))]

    def is_untold(self, namespace: str, name: str) -> bool:
        """Tells whether there are notices about an experiment that is known here."""
        query = (
            sa.select(OUTBOX.c.id)
            .join(EXPERIMENTS, EXPERIMENTS.c.id == OUTBOX.c.experiment_id)
            .where(EXPERIMENTS.c.namespace == namespace, EXPERIMENTS.c.name == name)
        )
        with read(self._engine) as connection:
            return connection.execute(query.limit(1)).first() is not None

    def told(self, notice_id: int) -> None:
        """Removes a notice."""
        run_transaction(self._engine, lambda c: c.execute(sa.delete(OUTBOX).where(OUTBOX.c.id == notice_id)))


def _announce(connection: sa.Connection, experiment_id: int, trial_number: int) -> None:
    connection.execute(sa.insert(OUTBOX).values(experiment_id=experiment_id, trial_number=trial_number))


def _of(namespace: str, trial_name: str) -> sa.ColumnElement[bool]:
    return sa.and_(OBSERVATION_LOGS.c.namespace == namespace, OBSERVATION_LOGS.c.trial_name == trial_name)


def _dump_conditions(conditions: Sequence[Condition]) -> str:
    return json.dumps([asdict(condition) for condition in conditions])


def _trial_values(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "name": trial.name,
        "assignments": json.dumps(dict(trial.assignments)),
        "conditions": _dump_conditions(trial.conditions),
        "state": trial.state.value,
        "observation": json.dumps([asdict(summary) for summary in trial.observation]),
        "attempts": trial.attempts,
        "reference": None if trial.reference is None else json.dumps(dict(trial.reference)),
        "labels": json.dumps(dict(trial.labels)),
        "ended_order": trial.ended_order,
        "started_ms": trial.started_ms,
        "completed_ms": trial.completed_ms,
        "model_uri": trial.model_uri or None,
    }


def _trial(row: Any) -> Trial:
    return Trial(
        number=row.number,
        name=row.name,
        assignments=json.loads(row.assignments),
        conditions=tuple(Condition(**item) for item in json.loads(row.conditions)),
        state=TrialState(row.state),
        observation=tuple(MetricSummary(**item) for item in json.loads(row.observation)),
        attempts=row.attempts,
        reference=None if row.reference is None else json.loads(row.reference),
        labels=json.loads(row.labels or "{}"),
        ended_order=row.ended_order,
        started_ms=row.started_ms,
        completed_ms=row.completed_ms,
        model_uri=row.model_uri or "",
    )


def _experiment(row: Any) -> Experiment:
    return Experiment(
        id=row.id,
        namespace=row.namespace,
        name=row.name,
        manifest=json.loads(row.manifest),
        conditions=tuple(Condition(**item) for item in json.loads(row.conditions)),
        active=bool(row.active),
        created_ms=row.created_ms,
        completed_ms=row.completed_ms,
        settings=json.loads(row.state or "{}"),
        paused=bool(row.paused),
    )
