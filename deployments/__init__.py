"""How the experiments stand as a service: docker-compose.yml with or without Docker, and automations."""
