"""What a plugin author imports: values, codecs, the plugin contract and its contract tests."""
