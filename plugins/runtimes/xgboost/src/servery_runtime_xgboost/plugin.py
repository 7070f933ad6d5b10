"""The descriptor of the xgboost runtime. Does not import its framework."""
