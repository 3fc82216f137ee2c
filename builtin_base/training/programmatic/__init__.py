"""Tasks with one right answer, made up by a program in any amount: copying, looking up, calling, counting, sorting."""
