"""Execution of shards here or on workers, with interruption."""
