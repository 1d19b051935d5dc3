"""Every picture, drawn once: for summaries, reports, TensorBoard and notebooks."""
