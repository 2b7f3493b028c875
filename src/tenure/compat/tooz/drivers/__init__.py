"""Tenure's drivers under the names of Tooz's, each with its `CHARACTERISTICS`.

`get_coordinator` finds them by the URL. The characteristics are those that Tenure's driver
declares, and, of the backend's consistency, what Tooz says of it and nothing has refuted.
"""
