"""What a dashboard is made of. Nothing here knows Predawn; `boards/` says what is shown."""
