"""The descriptor of the catboost runtime. Does not import its framework."""
