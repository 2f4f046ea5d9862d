"""The models: one method a file, grouped by family. Their rows are in `unsup.core.rows`."""
