"""Scheduled retraining: deliveries, the ledger, cycles, the gate."""
