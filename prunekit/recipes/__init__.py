"""Recipes that come with PruneKit, as YAML files."""
