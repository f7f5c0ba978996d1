"""Profiles: named sets of settings for kinds of machines, and what each of them asks of its machine.

Belongs here: the profiles themselves (``*.yaml``), their schema, reading and checking one, what it comes to beside
other settings, and whether a machine is enough for it. Does not belong here: the settings (``specs``), looking at a
machine (``stores.capacity``), options of commands (``cli.settings``).
"""
