"""Speed, side by side with peers and slow references, in one run. ``python -m benchmarks`` runs them all."""
