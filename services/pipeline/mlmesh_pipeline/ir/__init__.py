"""The intermediate representation of pipelines (`ml_pipelines.PipelineSpec`): read, checked, evaluated."""
