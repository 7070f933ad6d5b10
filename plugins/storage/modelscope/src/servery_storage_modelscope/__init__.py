"""Artifacts of ModelScope."""
