"""Fine-tune an image classifier that tells no smile, a genuine smile and a posed smile apart."""

__version__ = "0.1.0"
