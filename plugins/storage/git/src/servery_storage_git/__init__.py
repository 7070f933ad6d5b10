"""Models in git repositories."""
