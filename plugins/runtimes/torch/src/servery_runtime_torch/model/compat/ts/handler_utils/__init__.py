"""What decorates handlers."""
