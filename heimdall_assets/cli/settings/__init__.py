"""Settings: every one told, chosen by a profile, a file, options and assignments, and checked."""
