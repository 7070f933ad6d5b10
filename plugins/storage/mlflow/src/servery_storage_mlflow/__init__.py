"""Artifacts of an MLflow tracking server and its registry."""
