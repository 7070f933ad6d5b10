"""Metrics that handlers record; the model server has its own."""
