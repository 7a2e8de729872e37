"""The widths of a network that meets a latency: by importance, or by NetAdapt."""
