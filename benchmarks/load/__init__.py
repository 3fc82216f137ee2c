"""A server under load: what honest boards get while others are a nuisance, over real sockets."""
