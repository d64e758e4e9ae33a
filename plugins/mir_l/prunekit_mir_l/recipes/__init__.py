"""Recipes that come with the plugin, as YAML files."""
