"""What a command means: from argv and YAML to frozen typed values, and the folder that a run works in.

Nothing here imports torch, so that a wrong request is answered at once.
"""
