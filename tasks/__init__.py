"""The steps of a run, one file each: a Prefect task reads artifacts, calls mars_core, writes an artifact."""
