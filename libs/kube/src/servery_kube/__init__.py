"""One port to a Kubernetes API server: the real one, and one in memory."""
