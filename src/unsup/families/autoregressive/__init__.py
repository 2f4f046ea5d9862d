"""One method a file; the rows of the registry are in `unsup.core.rows`."""
