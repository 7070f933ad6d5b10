"""Fetches model artifacts: whole or not at all."""
