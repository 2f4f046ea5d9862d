"""One method per file; the rows of the registry are in `unsup.core.rows`."""
