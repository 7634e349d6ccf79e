"""What the operator of a server is told: checks at the start, health, metrics."""
