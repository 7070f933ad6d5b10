"""Several models behind one server: brought, loaded, unloaded and let go as they are assigned."""
