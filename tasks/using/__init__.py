"""What becomes of a trained model: scores of files, a server, a repository on the hub."""
