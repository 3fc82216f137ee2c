"""Training speed and memory beside transformers + PEFT and bitsandbytes."""
