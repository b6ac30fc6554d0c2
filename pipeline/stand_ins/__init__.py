"""SPT's search for whose parsing stands in for a target's."""
