"""The contract between boards and server: messages, tensors, limits, round states."""
