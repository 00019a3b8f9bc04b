"""Looks at a data file and writes the first spec for it; see `include.profile.new`."""
