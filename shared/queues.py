"""The broker's queues, by name: what a worker hears, and where hints are sent."""

EXCHANGE = "llm_edge"
INTERACTIVE_QUEUE = "interactive"
BATCH_QUEUE = "batch"
