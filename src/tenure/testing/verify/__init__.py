"""The runner: it starts backends, runs the suite against them, and writes the evidence.

    from tenure.testing.verify.runner import Options, verify_driver

Nobody but the runner writes evidence; what a driver has earned follows from it alone (see
`tenure.policy`). pytest is not needed.
"""
