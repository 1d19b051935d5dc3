"""A research template for image classification: the front doors are `src.train` and `src.eval`."""

__version__ = "0.1.0"
