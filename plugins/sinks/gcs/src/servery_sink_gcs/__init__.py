"""Payload logs in gs:// buckets."""
