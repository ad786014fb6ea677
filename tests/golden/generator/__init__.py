"""The golden cases, a module per kind."""
