"""The descriptor of the triton runtime. Does not import its framework."""
