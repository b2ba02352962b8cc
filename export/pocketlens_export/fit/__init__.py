"""Fitting what composed queries need beside a frozen model: inversion networks and vocabularies."""
