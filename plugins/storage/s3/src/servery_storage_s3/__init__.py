"""s3:// artifacts."""
