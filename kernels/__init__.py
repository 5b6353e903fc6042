"""Triton kernels and the local engine; an optional extra that the proxy core never imports."""
