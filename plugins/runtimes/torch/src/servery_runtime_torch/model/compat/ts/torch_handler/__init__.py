"""Default handlers and the classes that custom ones extend."""
