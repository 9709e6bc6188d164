"""Deployment as services: docker-compose.yml with or without Docker, and Prefect's automations."""
