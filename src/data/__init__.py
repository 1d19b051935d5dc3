"""From disk to batches: readers of data sets, sets of images, their order, and what is done to a batch on its device.

A reader gives images.Source; everything random here is a function of the seed and the position in the run.
"""
