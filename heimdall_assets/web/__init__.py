"""Web: what answers a browser. Dagster's page and the pages of releases, behind one guard, in one process.

Nothing that is served here is reached but through ``guard``: it looks at the address, the origin and the kind of a
request, at who asks and what the role may, in that order, before any page sees it.
"""
