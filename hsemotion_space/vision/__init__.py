"""From frames to embeddings: detection, tracking, alignment, networks."""
