"""Serves LightGBM models."""
