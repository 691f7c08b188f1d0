"""What runs in pods (`driver PATH`, `fetch`, `store`), and `compile FILE`, which shows the Workflow of a pipeline."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

import yaml
from mlmesh_kit.errors import NotFound, ServiceError
from mlmesh_kit.objectstore import open_store

from mlmesh_pipeline.argo.check import check_compilable
from mlmesh_pipeline.argo.cluster import Cluster
from mlmesh_pipeline.argo.names import task_id_of
from mlmesh_pipeline.argo.options import Options
from mlmesh_pipeline.argo.state import RunState
from mlmesh_pipeline.argo.task_driver import TaskDriver, tell_argo
from mlmesh_pipeline.argo.task_executor import TaskExecutor
from mlmesh_pipeline.argo.templates import DECIDED_TO_FAIL
from mlmesh_pipeline.argo.workflow import compile_workflow
from mlmesh_pipeline.engine.remote import Unusable
from mlmesh_pipeline.engine.trees import BadTree
from mlmesh_pipeline.ir.check import check
from mlmesh_pipeline.ir.document import join_documents, parse
from mlmesh_pipeline.resources import Run, now

_NOBODY = "00000000-0000-0000-0000-000000000000"


def main(argv: list[str], environment: dict[str, str]) -> int:
    """Does what the arguments say; gives the exit code.

    Args:
        argv: Without the program's name.
        environment: Says where the run's state is.
    """
    parser = argparse.ArgumentParser(prog="python -m mlmesh_pipeline.argo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("driver", help="decide on a task").add_argument("path")
    commands.add_parser("fetch", help="get a task's inputs")
    commands.add_parser("store", help="put away a task's outputs")
    show = commands.add_parser("compile", help="print the Workflow of a pipeline, as YAML")
    show.add_argument("file", type=Path, help="a compiled pipeline (YAML)")
    show.add_argument("--namespace", default="default", help="of the Workflow (default)")
    show.add_argument("--artifact-root", default="s3://mlmesh", help="where artifacts and state go (s3://mlmesh)")
    given = parser.parse_args(argv)
    if given.command == "compile":
        return _compile(given.file, given.namespace, given.artifact_root.rstrip("/"))
    uri, number = environment["MLMESH_ARGO_RUN"], int(environment["MLMESH_ARGO_TRY"])
    state = RunState(open_store(_store_root(uri)), uri, number)
    run, document, content = state.described()
    options = Options(**content)
    if given.command == "driver":
        decision = TaskDriver(run, document, options, state, Cluster).decide(given.path)
        tell_argo(decision, Path(environment["MLMESH_ARGO_OUTPUTS"]), task_id_of(run.run_id, given.path))
        return DECIDED_TO_FAIL if decision.failed else 0
    executor = TaskExecutor(run, document, options, state, environment["MLMESH_ARGO_TASK"])
    if given.command == "fetch":
        try:
            executor.fetch()
        except (NotFound, Unusable, BadTree) as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
        return 0
    why = executor.store()
    if why:
        print(why, file=sys.stderr)  # noqa: T201
    return 1 if why else 0


def _store_root(uri: str) -> str:
    """Gives the root of the store that a URI lies in; a folder of files is one store up to the root of the machine."""
    return "file:///" if uri.startswith("file://") else uri


def _compile(path: Path, namespace: str, root: str) -> int:
    try:
        document = parse(join_documents(list(yaml.safe_load_all(path.read_text()))))
        check(document)
        check_compilable(document)
    except OSError as error:
        print(f"cannot read {path}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 1
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        hint = "; compile it first: kfp dsl compile --py FILE.py --output FILE.yaml" if path.suffix == ".py" else ""
        print(f"{path} is not YAML: {error}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    except ServiceError as error:
        print(f"{path}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    run = Run(_NOBODY, namespace, "", document.name, document.name, "", {}, created_at=now())
    options = Options(artifact_root=root, state_root=f"{root}/mlmesh-state")
    workflow = compile_workflow(document, run, 1, options)
    # Through JSON: what several templates share is written out in each.
    text = yaml.safe_dump(json.loads(json.dumps(workflow)), sort_keys=False)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(main(sys.argv[1:], dict(os.environ)))
