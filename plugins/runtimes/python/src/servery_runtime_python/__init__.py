"""Serves a ``model.py`` that the artifact holds."""
