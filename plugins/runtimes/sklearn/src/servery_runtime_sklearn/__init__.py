"""Serves scikit-learn models."""
