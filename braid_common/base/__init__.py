"""A T5 base in a folder: its config, the layout of its weights, its tokenizer, and whether it is whole. No torch."""
