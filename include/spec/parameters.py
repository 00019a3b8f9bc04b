"""Names of the parameters that runs take, for those who check them without Airflow."""

TRAINING = ("reason", "trigger", "force", "as_of")
MONITORING = ("force", "html", "as_of")
SCORING = ("partition",)
