"""From embeddings to an analysis: heads, smoothing, summaries, and the pipeline that knows the order."""
