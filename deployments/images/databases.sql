-- Runs once, in the database that the server was made with: a database for Prefect, for MLflow, for MLflow's users.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
