"""Many inputs: what to analyze, results that survive a crash, one machine or a cluster."""
