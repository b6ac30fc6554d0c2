"""The stages of Repose, in the order of the stage table, and what they share."""
