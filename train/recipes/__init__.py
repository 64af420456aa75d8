"""The keys of the recipes, and how recipes are read."""
