"""How good predictions are: metrics, bootstrap intervals, and how a version is asked. Shared by all stages."""
