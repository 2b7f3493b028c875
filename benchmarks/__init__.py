"""How fast Tenure is: ratios to the raw clients and to the peers, measured in one run."""
