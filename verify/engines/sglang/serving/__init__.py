"""What serving a whole SGLang release on CPU ranks takes."""
