"""Serves PMML models."""
