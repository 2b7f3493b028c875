"""Tenure's drivers under the names of Tooz's, each with its `CHARACTERISTICS`.

`get_coordinator` finds them by the URL. The characteristics are those that Tenure's driver
claims and that experiments have corroborated; see the ledger in the documentation.
"""
