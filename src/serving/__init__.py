"""What a checkpoint is good for: scored, asked about files, exported, shown on a page. Each file is one door's work."""
