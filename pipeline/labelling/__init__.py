"""From texts to a teacher's logits: tokenising, batching, running the model, caching the results."""
