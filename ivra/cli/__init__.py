"""The command ``ivra``."""
