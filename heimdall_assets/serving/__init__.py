"""The service: released models answer over HTTP, each caller by the model that the ledger's rules say now.

Belongs here: requests, who answers them, what is measured of them, what each may cost. Does not belong here: models
(``inference``), rules (``serving_rules``, ``pipeline.releases.rules``), pages for people (``web``).
"""
