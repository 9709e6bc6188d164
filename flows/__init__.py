"""The experiments, one Prefect flow a file, and the command line that starts them."""
