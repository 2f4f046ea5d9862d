"""Which model for my data? A contest of models under a time budget, with the same measures, on one page."""
