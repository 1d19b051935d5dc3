"""Pictures of runs and answers, each drawn onto a figure that the caller has made with `canvas.blank`.

They are drawn by matplotlib without a screen.
"""
