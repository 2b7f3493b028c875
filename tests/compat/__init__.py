"""The suite for `tenure.compat`: every call, on every driver."""
