"""Corrections by visitors: records, consent, store, publishing, agreement."""
