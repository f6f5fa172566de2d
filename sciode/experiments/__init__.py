"""One file a result table, resumable row by row."""
