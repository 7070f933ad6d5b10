"""Payload logs in s3:// buckets."""
