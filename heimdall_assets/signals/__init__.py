"""Signals: IQ samples in memory, and what is computed from them. No files, no positions of transmitters."""
