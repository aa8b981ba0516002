"""modbot moderates the images of a Discord server in bulk."""

__version__ = "0.1.0"
