"""What each configured place answers when it is asked: one finding a place, nothing changed for good."""
