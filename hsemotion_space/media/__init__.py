"""Safe decoding of untrusted pictures and clips."""
