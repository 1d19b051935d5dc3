"""Many runs: grids, which Hydra's launchers start, and searches, which Optuna leads.

Each run of theirs is one like any other.
"""
