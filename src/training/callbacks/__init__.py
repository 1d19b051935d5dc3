"""What happens beside the steps of a run: what a user may copy, change, delete.

Those listed in `configs/callbacks/` draw pictures or take measures; the rest are the trainer's own.
"""
