"""Training on a lent GPU: what is carried there, minutes of training, and what is brought back.

The machine is taken to hold PyTorch, transformers, tokenizers and safetensors, and to reach no network, so nothing here
imports more than those, numpy, and this repository's own files that need no more.
"""
