"""MLflow: runs, comparisons, evaluations, the registry of models."""
