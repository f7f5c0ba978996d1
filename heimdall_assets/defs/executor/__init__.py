"""Executor: where the steps of a run are carried out; ``local`` and ``ray`` are ways, ``router`` chooses one a step."""
