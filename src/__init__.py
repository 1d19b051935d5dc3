"""A research template for image classification: the files beside this one are its doors, the folders its rooms."""

__version__ = "0.1.0"
