"""Serves MLflow models."""
