"""Running: one run of the graph in this process, asked for by a command or from Python: history, signals, its end."""
