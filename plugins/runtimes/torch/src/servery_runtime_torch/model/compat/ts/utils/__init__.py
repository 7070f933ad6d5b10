"""Labels, module lookups and exceptions."""
