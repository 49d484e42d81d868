"""The suites: each module has TITLE, SOURCE (whose rules), KIND (of backend and proxy), `backend()` and CASES."""
