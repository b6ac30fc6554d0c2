"""The papers' kinds of figures, one module a kind; `subject` opens what they are made of, `figure` is the command."""
