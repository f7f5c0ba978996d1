"""Things: what lineage speaks about beside results (``kinds``): sessions, measurements, stations, parts of tables.

Belongs here: their kinds, each said once. Does not belong here: of which of them a result is made (``lineage.edges``).
"""

Thing = tuple[str, str]
"""Kind and name of something that lineage speaks about: a result by its digest, or one of those below."""

Edge = tuple[Thing, Thing, Thing | None]
"""What was used, what it was used for, and, of a recording or a station, the measurement through which it was."""

SESSION, SESSION_NAME = "session", "session_name"
SOURCE, SOURCE_NAME = "source", "source_name"
STATION, STATION_NAME = "station", "station_name"
MEASUREMENT = "measurement"
DECISION = "decision"
"""By its number: what approved a session."""
OBJECT = "object"
"""Bytes at rest, by digest: a recording, a table, weights."""
RELEASE = "release"

SESSION_ROWS, SESSION_RECORDINGS = "session_rows", "session_recordings"
"""What of one session stands in a snapshot, and its recordings that were pinned: the same in every snapshot that did
not change it, and so told once."""
PART = "part"
"""Neighbours in a table, by digest of what they are: most of a table is the same from one result to the next."""
