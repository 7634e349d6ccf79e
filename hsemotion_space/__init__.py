"""HSEmotion Space: an open playground for facial affect."""

__version__ = "0.1.0"
