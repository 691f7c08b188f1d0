"""The local engine: runs pipelines as processes of this machine, over the database."""
