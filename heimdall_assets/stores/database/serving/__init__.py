"""What decides in the ledger who is answered by which model: rules, and keys of callers."""
