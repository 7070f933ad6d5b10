"""gs:// artifacts."""
