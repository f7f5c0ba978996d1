"""Raw: rows as they come from a database, ours or somebody's one table, column by column, and which can be believed."""
