"""Small real programs on Tenure, which assert their own outcome.

    python -m tenure.testing.programs.scheduler redis://localhost:6379

Each starts processes, kills some of them, and ends with 0 if what was promised held.
"""

ALL = ("nightly_job", "scheduler", "shared_work")
LOCKS_ONLY = ("nightly_job",)
"""Those that need nothing but locks."""
