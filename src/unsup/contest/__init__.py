"""Which model for my data? A contest of models under a time budget, measured alike, on one page."""
