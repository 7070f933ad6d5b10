"""The descriptor of the torch runtime. Does not import its framework."""
