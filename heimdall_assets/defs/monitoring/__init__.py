"""What is told of the champion in use: checks, who hears of an alert, what it asks for."""
