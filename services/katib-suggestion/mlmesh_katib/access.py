"""What each RPC asks of its caller."""

from mlmesh_kit.access import Access, AccessTable

_SUGGEST = Access("create", "suggestions")
_REPORT = Access("update", "trials")

ACCESS: AccessTable = {
    "api.v1.beta1.Suggestion": {"GetSuggestions": _SUGGEST, "ValidateAlgorithmSettings": _SUGGEST},
    "api.v1.beta1.EarlyStopping": {
        "GetEarlyStoppingRules": _SUGGEST,
        "SetTrialStatus": _REPORT,
        "ValidateEarlyStoppingSettings": _SUGGEST,
    },
    "api.v1.beta1.DBManager": {
        "ReportObservationLog": _REPORT,
        "GetObservationLog": Access("get", "trials"),
        "DeleteObservationLog": _REPORT,
    },
    "mlmesh.katib.v1.ExperimentService": {
        "CreateExperiment": Access("create", "experiments", "parent"),
        "GetExperiment": Access("get", "experiments", "name"),
        "GetExperimentReport": Access("get", "experiments", "name"),
        "ListExperiments": Access("list", "experiments", "parent"),
        "DeleteExperiment": Access("delete", "experiments", "name"),
        "UpdateExperiment": Access("update", "experiments", "experiment.name"),
        "PauseExperiment": Access("update", "experiments", "name"),
        "ResumeExperiment": Access("update", "experiments", "name"),
        "GetTrial": Access("get", "trials", "name"),
        "ListTrials": Access("list", "trials", "parent"),
        "ListObservations": Access("get", "trials", "parent"),
    },
}
