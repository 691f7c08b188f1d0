"""Katib's successCondition and failureCondition: GJSON paths over the resource of a trial."""

import pytest
from mlmesh_katib.jobs.conditions import parse_conditions
from mlmesh_kit.errors import InvalidArgument


def resource(*given: tuple[str, str], **status) -> dict:
    found = [{"type": kind, "status": value, "reason": f"{kind}Reason", "message": "said"} for kind, value in given]
    return {"kind": "Any", "status": {"conditions": found, **status}}


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("Job", "Complete"),
        ("TrainJob", "Complete"),
        ("TFJob", "Succeeded"),
        ("PyTorchJob", "Succeeded"),
        ("XGBoostJob", "Succeeded"),
        ("MPIJob", "Succeeded"),
        ("JAXJob", "Succeeded"),
    ],
)
def test_each_kind_has_its_own_conditions(kind, good):
    conditions = parse_conditions(kind, None, "", "t")
    assert conditions.ended({"kind": kind}) is None
    assert conditions.ended(resource(("Created", "True"), (good, "False"))) is None
    ended = conditions.ended(resource(("Created", "True"), (good, "True")))
    assert ended is not None and ended.ok
    ended = conditions.ended(resource((good, "True"), ("Failed", "True")))  # failure is looked at first
    assert ended is not None and not ended.ok
    assert ended.message == "FailedReason: said"


def test_conditions_of_an_argo_workflow_look_at_the_phase():
    conditions = parse_conditions(
        "Workflow", 'status.[@this].#(phase=="Succeeded")#', 'status.[@this].#(phase=="Failed")#', "t"
    )
    assert conditions.ended(resource(phase="Running")) is None
    assert conditions.ended(resource(phase="Succeeded")).ok
    assert not conditions.ended(resource(phase="Failed")).ok


def test_conditions_of_a_tekton_run_look_at_one_condition_both_ways():
    paths = [f'status.conditions.#(type=="Succeeded")#|#(status=="{value}")#' for value in ("True", "False")]
    conditions = parse_conditions("PipelineRun", *paths, "t")
    assert conditions.ended(resource(("Succeeded", "Unknown"))) is None
    assert conditions.ended(resource(("Succeeded", "True"))).ok
    assert not conditions.ended(resource(("Succeeded", "False"))).ok


def test_only_objects_and_lists_that_are_not_empty_hold():
    conditions = parse_conditions("RayJob", "status.jobStatus", 'status.[@this].#(jobStatus=="FAILED")#', "t")
    assert conditions.ended(resource(jobStatus="SUCCEEDED")) is None  # a text, as for Katib
    assert not conditions.ended(resource(jobStatus="FAILED")).ok


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ('status.conditions.#(type=="Complete"', "Unbalanced"),
        ("status..phase", "consecutive"),
        ("status.conditions.#(type==Complete)#", "double quotes"),
        ("status.@nothing", "no modifier @nothing"),
        ("status.[@this].[@nothing]", "no modifier @nothing"),
        ('status.conditions.#(type%"(a+)+$")#', "wildcards"),
        ('status.conditions.#(type%"*a*a*a")#', "at most 2 wildcards"),
        ("x" * 1001, "1000 characters"),
        ("[" * 900, ""),
        (7, "string"),
    ],
)
def test_what_is_no_path_is_refused_and_named(path, words):
    with pytest.raises(InvalidArgument) as caught:
        parse_conditions("Job", path, None, "spec.trialTemplate")
    assert caught.value.violations[0][0] == "spec.trialTemplate.successCondition"
    assert words in caught.value.message


def test_a_kind_without_defaults_needs_both_conditions():
    with pytest.raises(InvalidArgument, match=r"t.successCondition: must be given: RayJob has no default"):
        parse_conditions("RayJob", None, "status.x", "t")
    with pytest.raises(InvalidArgument, match=r"t.failureCondition: must be given"):
        parse_conditions("RayJob", "status.x", None, "t")
