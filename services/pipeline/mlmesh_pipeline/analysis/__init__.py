"""Questions about runs: why a task was not answered from the cache, how runs differ, what a run can take over."""
