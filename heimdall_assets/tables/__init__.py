"""Tables of received levels, as others publish them, to words of this project; what they leave open is asked for.

Belongs here: text, columns, codes, units and times of tables. Does not belong here: recordings (``formats``), opening
files (``intake.level_files``), rows and identities (``intake.level_table``).
"""
