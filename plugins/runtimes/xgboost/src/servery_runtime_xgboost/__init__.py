"""Serves XGBoost models."""
