"""The pipeline: which stage computes what from what, found again by its cache key. Names no orchestrator."""
