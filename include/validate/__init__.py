"""The validate stage; start at `include.validate.stage`."""
