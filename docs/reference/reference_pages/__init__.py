"""What generate.py prints, a module a page, and what the pages of fields are found by."""
