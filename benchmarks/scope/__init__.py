"""The cost of decoder scope: training the decoder alone against training every weight."""
