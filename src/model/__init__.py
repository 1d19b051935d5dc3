"""Networks, what makes one a classifier, and what a checkpoint says about itself.

A trained one answers as a Predictor, wherever it is asked.
"""
