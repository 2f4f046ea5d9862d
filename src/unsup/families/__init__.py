"""The models: one method per file, grouped by family. Their rows are in `unsup.core.rows`."""
