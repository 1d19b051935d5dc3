"""What a checkpoint is good for: scored again, asked about image files, exported as a graph, shown on a page.

Each file is one door's work; all of them answer by `src.model.predictor`.
"""
