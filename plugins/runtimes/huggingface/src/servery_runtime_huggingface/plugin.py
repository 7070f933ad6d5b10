"""The descriptor of the huggingface runtime. Does not import its framework."""
