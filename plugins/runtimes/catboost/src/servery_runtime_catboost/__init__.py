"""Serves CatBoost models."""
