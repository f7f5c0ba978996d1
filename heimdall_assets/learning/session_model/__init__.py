"""The session model: one transmission heard by several receivers, to a position with its covariance."""
