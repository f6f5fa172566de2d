"""Every sampler of the field as data or a small function, one idea a file."""
