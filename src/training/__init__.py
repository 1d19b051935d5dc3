"""One run: it is built, fitted, stopped or resumed, tested once, and written down.

`run.py` tells the story; the callbacks may be copied, changed, deleted.
"""
