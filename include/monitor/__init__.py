"""The stage that watches a deployed model: drift, data quality, decay, and the wish to retrain."""
