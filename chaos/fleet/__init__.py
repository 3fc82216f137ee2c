"""The processes of a chaos run: the real server, and the real client with a worker that trains next to nothing."""
