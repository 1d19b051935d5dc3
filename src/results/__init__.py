"""Everything to look at: what a run came to, its page and pictures, tables of many runs, and the screen.

Nothing here trains; what is shown comes from a run's folder or from a network's answers.
"""
