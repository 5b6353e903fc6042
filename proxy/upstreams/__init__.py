"""Where replies come from: one file per kind of upstream, all behind `base.Upstream`."""
