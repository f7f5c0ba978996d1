"""What the champion does on sessions that came after it: judged before they are trained on, and watched."""
