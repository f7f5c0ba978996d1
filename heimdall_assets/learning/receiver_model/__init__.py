"""The single-receiver model: one spectrogram, to a position with its uncertainty."""
