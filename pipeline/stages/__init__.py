"""One module per stage, named as the stage. Each has `AXES`, a typed `Params` block and a thin `run`."""
