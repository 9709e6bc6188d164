"""Inspection of runs, before and after: estimate, preview, lineage, export."""
