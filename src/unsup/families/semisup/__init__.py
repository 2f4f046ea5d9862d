"""Classifiers that learn from few labels and many examples without: semi-supervised learning."""
