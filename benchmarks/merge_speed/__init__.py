"""The server's merge: time, memory and error beside a dense SVD and a naive stack."""
