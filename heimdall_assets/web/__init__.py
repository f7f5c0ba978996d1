"""Web: what answers a browser. Dagster's page, the pages of releases and those of sessions, behind one guard.

Nothing that is served here is reached but through ``guard``: it looks at the address, the origin and the kind of a
request, at who asks and what the role may, in that order, before any page sees it.
"""
